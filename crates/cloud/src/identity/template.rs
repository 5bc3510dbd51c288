//! Provisioning templates: AWS's grammar, as a pure function from parameters to what is to be made.
//!
//! A body that cannot be evaluated at all is refused when it is stored; what depends on parameters, when a device comes.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::registry::Status;

/// How a template calls the certificate that a device has just got.
const CERTIFICATE_ID: &str = "AWS::IoT::Certificate::Id";
/// Deeper than any template needs.
const DEPTH: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
pub(super) struct Template {
    #[serde(default)]
    parameters: BTreeMap<String, Parameter>,
    #[serde(default)]
    mappings: BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>,
    resources: BTreeMap<String, Resource>,
    #[serde(default)]
    device_configuration: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Parameter {
    #[serde(rename = "Type")]
    kind: ParameterType,
    #[serde(default)]
    default: Option<String>,
}

#[derive(Debug, Deserialize)]
enum ParameterType {
    String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Resource {
    #[serde(rename = "Type")]
    kind: ResourceType,
    #[serde(default)]
    properties: Map<String, Value>,
    #[serde(default)]
    override_settings: BTreeMap<String, Override>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
enum ResourceType {
    #[serde(rename = "AWS::IoT::Thing")]
    Thing,
    #[serde(rename = "AWS::IoT::Certificate")]
    Certificate,
    #[serde(rename = "AWS::IoT::Policy")]
    Policy,
}

/// What becomes of a property of a thing that is there already.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Override {
    #[default]
    DoNothing,
    Merge,
    Replace,
    Fail,
}

/// What a template comes to for one device.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) thing: Option<ThingPlan>,
    pub(crate) status: Status,
    pub(crate) policies: Vec<PolicyPlan>,
    pub(crate) device_configuration: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ThingPlan {
    pub(crate) name: String,
    pub(crate) type_name: Option<String>,
    pub(crate) billing_group: Option<String>,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) groups: Vec<String>,
    pub(crate) on_attributes: Override,
    pub(crate) on_type: Override,
    pub(crate) on_groups: Override,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PolicyPlan {
    Named(String),
    Document(String),
}

impl Template {
    pub(super) fn parse(body: &str) -> Result<Self, String> {
        let template: Self = serde_json::from_str(body).map_err(|error| error.to_string())?;
        let count = |kind| template.resources.values().filter(|resource| resource.kind == kind).count();
        match (count(ResourceType::Thing), count(ResourceType::Certificate)) {
            (0 | 1, 1) => Ok(template),
            (_, 1) => Err("at most one resource of type AWS::IoT::Thing is allowed".to_owned()),
            _ => Err("exactly one resource of type AWS::IoT::Certificate is required".to_owned()),
        }
    }

    pub(super) fn plan(
        &self,
        given: &BTreeMap<String, String>,
        certificate_id: &str,
    ) -> Result<Plan, String> {
        let mut values = BTreeMap::new();
        for (name, parameter) in &self.parameters {
            let ParameterType::String = parameter.kind;
            let value = if name == CERTIFICATE_ID { None } else { given.get(name) };
            if let Some(value) = value.or(parameter.default.as_ref()) {
                values.insert(name.as_str(), value.as_str());
            } else if name != CERTIFICATE_ID {
                return Err(format!("parameter {name} has no value and no default"));
            }
        }
        values.insert(CERTIFICATE_ID, certificate_id);
        let scope = Scope { values, mappings: &self.mappings };
        let mut plan = Plan {
            thing: None,
            status: Status::Active,
            policies: Vec::new(),
            device_configuration: Map::new(),
        };
        for resource in self.resources.values() {
            match resource.kind {
                ResourceType::Thing => plan.thing = Some(scope.thing(resource)?),
                ResourceType::Certificate => plan.status = scope.certificate(resource, certificate_id)?,
                ResourceType::Policy => plan.policies.push(scope.policy(resource)?),
            }
        }
        for (name, value) in &self.device_configuration {
            plan.device_configuration.insert(name.clone(), scope.text(value, DEPTH)?.into());
        }
        Ok(plan)
    }
}

/// What names stand for.
struct Scope<'t> {
    values: BTreeMap<&'t str, &'t str>,
    mappings: &'t BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>,
}

impl Scope<'_> {
    fn thing(&self, resource: &Resource) -> Result<ThingPlan, String> {
        let property = |name: &str| self.property(resource, name);
        let name = property("ThingName")?.ok_or("ThingName is required")?;
        let attributes = match resource.properties.get("AttributePayload") {
            None => BTreeMap::new(),
            Some(Value::Object(members)) => members
                .iter()
                .map(|(name, value)| Ok((name.clone(), self.text(value, DEPTH)?)))
                .collect::<Result<_, String>>()?,
            Some(_) => return Err("AttributePayload has to be an object".to_owned()),
        };
        let groups = match resource.properties.get("ThingGroups") {
            None => Vec::new(),
            Some(list) => self.texts(list, DEPTH)?,
        };
        let on = |name: &str| resource.override_settings.get(name).copied().unwrap_or_default();
        Ok(ThingPlan {
            name,
            type_name: property("ThingTypeName")?,
            billing_group: property("BillingGroup")?,
            attributes,
            groups,
            on_attributes: on("AttributePayload"),
            on_type: on("ThingTypeName"),
            on_groups: on("ThingGroups"),
        })
    }

    fn certificate(&self, resource: &Resource, id: &str) -> Result<Status, String> {
        let named = self.property(resource, "CertificateId")?.ok_or("CertificateId is required")?;
        if named != id {
            return Err(format!("CertificateId has to be {{\"Ref\": \"{CERTIFICATE_ID}\"}}"));
        }
        match self.property(resource, "Status")?.as_deref().map(str::to_uppercase).as_deref() {
            None | Some("ACTIVE") => Ok(Status::Active),
            Some("INACTIVE") => Ok(Status::Inactive),
            Some(other) => Err(format!("Status {other} has to be ACTIVE or INACTIVE")),
        }
    }

    fn policy(&self, resource: &Resource) -> Result<PolicyPlan, String> {
        if let Some(name) = self.property(resource, "PolicyName")? {
            return Ok(PolicyPlan::Named(name));
        }
        match resource.properties.get("PolicyDocument") {
            // Written as JSON, it is evaluated to its last string.
            Some(document @ Value::Object(members)) if !is_function(members) => {
                Ok(PolicyPlan::Document(self.inside(document, DEPTH)?.to_string()))
            }
            Some(text) => self.text(text, DEPTH).map(PolicyPlan::Document),
            None => Err("a policy needs PolicyName or PolicyDocument".to_owned()),
        }
    }

    fn property(&self, resource: &Resource, name: &str) -> Result<Option<String>, String> {
        resource.properties.get(name).map(|value| self.text(value, DEPTH)).transpose()
    }

    fn inside(&self, value: &Value, depth: usize) -> Result<Value, String> {
        let deeper = depth.checked_sub(1).ok_or("it is nested too deeply")?;
        match value {
            Value::Object(members) if !is_function(members) => members
                .iter()
                .map(|(name, value)| Ok((name.clone(), self.inside(value, deeper)?)))
                .collect::<Result<Map<_, _>, String>>()
                .map(Value::Object),
            Value::Array(values) => {
                values.iter().map(|value| self.inside(value, deeper)).collect::<Result<_, _>>()
            }
            Value::Object(_) => self.text(value, deeper).map(Value::String),
            other => Ok(other.clone()),
        }
    }

    fn text(&self, value: &Value, depth: usize) -> Result<String, String> {
        let deeper = depth.checked_sub(1).ok_or("it is nested too deeply")?;
        let members = match value {
            Value::String(text) => return Ok(text.clone()),
            Value::Object(members) if members.len() == 1 => members,
            other => return Err(format!("{other} is neither a string nor a function")),
        };
        let argument = |name: &str| members.get(name);
        if let Some(name) = argument("Ref") {
            return self.value(name.as_str().unwrap_or_default());
        }
        if let Some(Value::String(text)) = argument("Fn::Sub") {
            return self.substituted(text, &BTreeMap::new());
        }
        match (members.iter().next(), members.values().next().and_then(Value::as_array).map(Vec::as_slice)) {
            (Some((name, _)), Some([separator, list])) if name == "Fn::Join" => {
                Ok(self.texts(list, deeper)?.join(&self.text(separator, deeper)?))
            }
            (Some((name, _)), Some([index, list])) if name == "Fn::Select" => {
                let index = index.as_u64().map_or_else(|| self.text(index, deeper), |n| Ok(n.to_string()))?;
                let list = self.texts(list, deeper)?;
                let found = index.parse::<usize>().ok().and_then(|index| list.into_iter().nth(index));
                found.ok_or_else(|| format!("Fn::Select: there is no element {index}"))
            }
            (Some((name, _)), Some([map, key, second])) if name == "Fn::FindInMap" => {
                let (map, key) = (self.text(map, deeper)?, self.text(key, deeper)?);
                let second = self.text(second, deeper)?;
                let found = self.mappings.get(&map).and_then(|map| map.get(&key)?.get(&second));
                found.cloned().ok_or_else(|| format!("Mappings has no {map}, {key}, {second}"))
            }
            (Some((name, _)), Some([text, Value::Object(more)])) if name == "Fn::Sub" => {
                let more = more
                    .iter()
                    .map(|(name, value)| Ok((name.as_str(), self.text(value, deeper)?)))
                    .collect::<Result<_, String>>()?;
                self.substituted(&self.text(text, deeper)?, &more)
            }
            _ => Err(format!("{value} is no function that gives a string")),
        }
    }

    fn texts(&self, value: &Value, depth: usize) -> Result<Vec<String>, String> {
        let deeper = depth.checked_sub(1).ok_or("it is nested too deeply")?;
        match value {
            Value::Array(values) => values.iter().map(|value| self.text(value, deeper)).collect(),
            Value::Object(members) => {
                match members.get("Fn::Split").and_then(Value::as_array).map(Vec::as_slice) {
                    Some([separator, text]) => {
                        let (separator, text) = (self.text(separator, deeper)?, self.text(text, deeper)?);
                        Ok(text.split(&separator).map(str::to_owned).collect())
                    }
                    _ => Err(format!("{value} is no list")),
                }
            }
            other => Err(format!("{other} is no list")),
        }
    }

    fn substituted(&self, text: &str, more: &BTreeMap<&str, String>) -> Result<String, String> {
        let (mut done, mut rest) = (String::new(), text);
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').ok_or("Fn::Sub: `${` without `}`")?;
            done += before;
            // `${!x}` is how a text writes `${x}` itself.
            match name.strip_prefix('!') {
                Some(literal) => done += &format!("${{{literal}}}"),
                None => {
                    done += &more.get(name).map_or_else(|| self.value(name), |value| Ok(value.clone()))?;
                }
            }
            rest = after;
        }
        Ok(done + rest)
    }

    fn value(&self, name: &str) -> Result<String, String> {
        let found = self.values.get(name).map(|value| (*value).to_owned());
        found.ok_or_else(|| format!("{name} is not declared in Parameters"))
    }
}

fn is_function(members: &Map<String, Value>) -> bool {
    members.len() == 1 && members.keys().all(|name| name == "Ref" || name.starts_with("Fn::"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(template: &Value, given: &[(&str, &str)]) -> Result<Plan, String> {
        let given = given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Template::parse(&template.to_string())?.plan(&given, "abc")
    }

    fn certificate() -> Value {
        let id = json!({"Ref": CERTIFICATE_ID});
        json!({"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": id, "Status": "Active"}})
    }

    #[test]
    fn a_template_with_everything() {
        let template = json!({
            "Parameters": {
                "Serial": {"Type": "String"},
                "Place": {"Type": "String", "Default": "north"},
                CERTIFICATE_ID: {"Type": "String"},
            },
            "Mappings": {"Hosts": {"north": {"url": "https://n"}, "south": {"url": "https://s"}}},
            "Resources": {
                "thing": {
                    "Type": "AWS::IoT::Thing",
                    "Properties": {
                        "ThingName": {"Fn::Join": ["-", ["edge", {"Ref": "Serial"}]]},
                        "AttributePayload": {"place": {"Ref": "Place"}, "v": "1"},
                        "ThingGroups": [{"Fn::Sub": "g-${Place}"}],
                        "ThingTypeName": {"Fn::Select": ["1", {"Fn::Split": [":", "a:lamp"]}]},
                        "BillingGroup": {"Fn::Sub": ["${x}!${!y}", {"x": {"Ref": "Serial"}}]},
                    },
                    "OverrideSettings": {"AttributePayload": "MERGE", "ThingGroups": "REPLACE"},
                },
                "certificate": certificate(),
                "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "p"}},
                "other": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": {
                    "Version": "2012-10-17", "Statement": [{"Resource": {"Ref": "Serial"}}],
                }}},
            },
            "DeviceConfiguration": {"url": {"Fn::FindInMap": ["Hosts", {"Ref": "Place"}, "url"]}},
        });
        let found = plan(&template, &[("Serial", "7"), ("Place", "south"), ("Unknown", "x")]).unwrap();
        let thing = found.thing.unwrap();
        assert_eq!((thing.name.as_str(), thing.type_name.as_deref()), ("edge-7", Some("lamp")));
        assert_eq!(json!(thing.attributes), json!({"place": "south", "v": "1"}));
        assert_eq!((thing.groups, thing.billing_group.as_deref()), (vec!["g-south".into()], Some("7!${y}")));
        assert_eq!((thing.on_attributes, thing.on_groups), (Override::Merge, Override::Replace));
        let document = json!({"Version": "2012-10-17", "Statement": [{"Resource": "7"}]}).to_string();
        assert_eq!(found.policies, [PolicyPlan::Document(document), PolicyPlan::Named("p".into())]);
        assert_eq!(
            (found.status, json!(found.device_configuration)),
            (Status::Active, json!({"url": "https://s"}))
        );
        // What has a default may be left out, and nothing else.
        let left_out = plan(&template, &[("Serial", "7")]).unwrap();
        assert_eq!(left_out.device_configuration["url"], "https://n");
        assert!(plan(&template, &[("Place", "south")]).unwrap_err().contains("Serial"));
        assert!(plan(&template, &[("Serial", "7"), ("Place", "east")]).unwrap_err().contains("Mappings"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |more: Value| json!({"Resources": {"certificate": certificate(), "x": more}});
        let thing = |name: Value| with(json!({"Type": "AWS::IoT::Thing", "Properties": {"ThingName": name}}));
        let mut deep = json!("x");
        for _ in 0..40 {
            deep = json!({"Fn::Join": ["", [deep]]});
        }
        let status = json!({"Type": "AWS::IoT::Certificate", "Properties": {
            "CertificateId": {"Ref": CERTIFICATE_ID}, "Status": "Pending"}});
        for (template, expected) in [
            (json!({"Resources": {}}), "exactly one"),
            (json!({"Resources": {"certificate": certificate()}, "More": {}}), "unknown field"),
            (with(json!({"Type": "AWS::S3::Bucket"})), "unknown variant"),
            (with(certificate()), "exactly one"),
            (with(json!({"Type": "AWS::IoT::Policy"})), "PolicyName"),
            (thing(json!({"Ref": "Missing"})), "not declared"),
            (thing(json!({"Fn::Nothing": []})), "no function"),
            (thing(json!(7)), "neither"),
            (thing(json!({"Fn::Select": [5, ["a"]]})), "no element"),
            (thing(json!({"Fn::Sub": "${a"})), "without"),
            (thing(deep), "too deeply"),
            (json!({"Resources": {"certificate": status}}), "ACTIVE"),
        ] {
            let error = plan(&template, &[]).unwrap_err();
            assert!(error.contains(expected), "{template}: {error}");
        }
    }
}
