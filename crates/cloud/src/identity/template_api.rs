//! The REST operations on provisioning templates.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::api::{Answer, Call, already_exists, api, invalid, with};
use super::registry::Registry;
use super::template::Template;
use crate::engine::ApiError;

const BODY_MAX: usize = 10_240;
const NAME_MAX: usize = 36;
const VERSIONS_MAX: usize = 5;

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct StoredTemplate {
    pub(super) enabled: bool,
    description: Option<String>,
    role: String,
    /// Kept and shown; there is no Lambda here to be called.
    hook: Option<Value>,
    default_version: u64,
    versions: Vec<Version>,
    created: i64,
    modified: i64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Version {
    id: u64,
    body: String,
    created: i64,
}

impl StoredTemplate {
    /// The body of the default version, which was understood when it came.
    pub(super) fn template(&self) -> Result<Template, String> {
        let version = self.versions.iter().find(|version| version.id == self.default_version);
        Template::parse(version.map(|version| version.body.as_str()).unwrap_or_default())
    }
}

impl Call<'_> {
    pub(super) fn run_on_templates(&self, op: &str, registry: &mut Registry) -> Option<Answer> {
        Some(match op {
            "CreateProvisioningTemplate" => self.create_template(registry),
            "DescribeProvisioningTemplate" => self.describe_template(registry),
            "ListProvisioningTemplates" => self.list_templates(registry),
            "UpdateProvisioningTemplate" => self.update_template(registry),
            "DeleteProvisioningTemplate" => self.delete_template(registry),
            "CreateProvisioningTemplateVersion" => self.create_version(registry),
            "DescribeProvisioningTemplateVersion" => self.describe_version(registry),
            "ListProvisioningTemplateVersions" => self.list_versions(registry),
            "DeleteProvisioningTemplateVersion" => self.delete_version(registry),
            _ => return None,
        })
    }

    fn create_template(&self, registry: &mut Registry) -> Answer {
        let name = self.required("templateName")?;
        let legal = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        if name.len() > NAME_MAX || !name.chars().all(legal) {
            return Err(invalid(format!("templateName {name:?} must match [0-9A-Za-z_-]{{1,36}}")));
        }
        let body = self.template_body()?;
        let role = self.required("provisioningRoleArn")?;
        if registry.templates.contains_key(name) {
            let message = format!("Template already exists: {name}");
            return Err(already_exists(message, name, &self.template_arn(name)));
        }
        let template = StoredTemplate {
            enabled: self.flag("enabled").unwrap_or(false),
            description: self.get("description").map(str::to_owned),
            role: role.to_owned(),
            hook: self.body.get("preProvisioningHook").cloned(),
            default_version: 1,
            versions: vec![Version { id: 1, body, created: self.now }],
            created: self.now,
            modified: self.now,
        };
        registry.put_template(name, template);
        Ok(json!({"templateArn": self.template_arn(name), "templateName": name, "defaultVersionId": 1}))
    }

    fn describe_template(&self, registry: &Registry) -> Answer {
        let (name, template) = self.template(registry)?;
        let body = template.versions.iter().find(|version| version.id == template.default_version);
        let more = json!({
            "defaultVersionId": template.default_version,
            "templateBody": body.map(|version| &version.body),
            "provisioningRoleArn": template.role,
        });
        let mut answer = with(self.template_summary(name, template), more);
        if let (Some(hook), Some(members)) = (&template.hook, answer.as_object_mut()) {
            members.insert("preProvisioningHook".to_owned(), hook.clone());
        }
        Ok(answer)
    }

    fn template_summary(&self, name: &str, template: &StoredTemplate) -> Value {
        let summary = json!({
            "templateArn": self.template_arn(name),
            "templateName": name,
            "creationDate": template.created,
            "lastModifiedDate": template.modified,
            "enabled": template.enabled,
            "type": "FLEET_PROVISIONING",
        });
        match &template.description {
            Some(description) => with(summary, json!({"description": description})),
            None => summary,
        }
    }

    fn list_templates(&self, registry: &Registry) -> Answer {
        let summaries = registry.templates.iter().map(|(name, found)| self.template_summary(name, found));
        Ok(json!({"templates": summaries.collect::<Vec<_>>()}))
    }

    fn update_template(&self, registry: &mut Registry) -> Answer {
        let (name, template) = self.template(registry)?;
        let mut template = template.clone();
        if let Some(id) = self.body.get("defaultVersionId").and_then(Value::as_u64) {
            version(&template, id)?;
            template.default_version = id;
        }
        template.enabled = self.flag("enabled").unwrap_or(template.enabled);
        template.description = self.get("description").map(str::to_owned).or(template.description);
        template.role = self.get("provisioningRoleArn").map(str::to_owned).unwrap_or(template.role);
        template.hook = self.body.get("preProvisioningHook").cloned().or(template.hook);
        if self.flag("removePreProvisioningHook") == Some(true) {
            template.hook = None;
        }
        template.modified = self.now;
        registry.put_template(name, template);
        Ok(json!({}))
    }

    fn delete_template(&self, registry: &mut Registry) -> Answer {
        let name = self.template(registry)?.0;
        registry.remove_template(name);
        Ok(json!({}))
    }

    fn create_version(&self, registry: &mut Registry) -> Answer {
        let (name, template) = self.template(registry)?;
        let mut template = template.clone();
        let body = self.template_body()?;
        if template.versions.len() >= VERSIONS_MAX {
            let message = format!("template {name} has {VERSIONS_MAX} versions already");
            return Err(api(409, "VersionsLimitExceededException", message));
        }
        let id = template.versions.last().map_or(1, |version| version.id + 1);
        template.versions.push(Version { id, body, created: self.now });
        if self.get("setAsDefault") == Some("true") {
            template.default_version = id;
        }
        template.modified = self.now;
        let is_default = template.default_version == id;
        registry.put_template(name, template);
        Ok(json!({
            "templateArn": self.template_arn(name),
            "templateName": name,
            "versionId": id,
            "isDefaultVersion": is_default,
        }))
    }

    fn describe_version(&self, registry: &Registry) -> Answer {
        let (_, template) = self.template(registry)?;
        let found = version(template, self.version_id()?)?;
        Ok(with(summary(template, found), json!({"templateBody": found.body})))
    }

    fn list_versions(&self, registry: &Registry) -> Answer {
        let (_, template) = self.template(registry)?;
        let versions: Vec<_> = template.versions.iter().map(|found| summary(template, found)).collect();
        Ok(json!({"versions": versions}))
    }

    fn delete_version(&self, registry: &mut Registry) -> Answer {
        let (name, template) = self.template(registry)?;
        let mut template = template.clone();
        let id = version(&template, self.version_id()?)?.id;
        if id == template.default_version {
            let message = format!("version {id} is the default version of template {name}");
            return Err(api(409, "DeleteConflictException", message));
        }
        template.versions.retain(|version| version.id != id);
        registry.put_template(name, template);
        Ok(json!({}))
    }

    fn template<'s, 'r>(&'s self, registry: &'r Registry) -> Result<(&'s str, &'r StoredTemplate), ApiError> {
        let name = self.required("templateName")?;
        let found = registry.templates.get(name).map(|template| (name, template));
        found.ok_or_else(|| api(404, "ResourceNotFoundException", format!("Template not found: {name}")))
    }

    fn template_body(&self) -> Result<String, ApiError> {
        let body = self.required("templateBody")?;
        if body.len() > BODY_MAX {
            return Err(invalid(format!("templateBody is longer than {BODY_MAX} characters")));
        }
        Template::parse(body).map_err(|error| invalid(format!("templateBody: {error}")))?;
        Ok(body.to_owned())
    }

    fn version_id(&self) -> Result<u64, ApiError> {
        let text = self.required("versionId")?;
        text.parse().map_err(|_| invalid(format!("versionId {text:?} is no number")))
    }

    fn flag(&self, member: &str) -> Option<bool> {
        self.body.get(member)?.as_bool()
    }

    fn template_arn(&self, name: &str) -> String {
        format!("arn:aws:iot:{}:{}:provisioningtemplate/{name}", self.region, self.account)
    }
}

fn version(template: &StoredTemplate, id: u64) -> Result<&Version, ApiError> {
    let found = template.versions.iter().find(|version| version.id == id);
    found.ok_or_else(|| api(404, "ResourceNotFoundException", format!("Template version not found: {id}")))
}

fn summary(template: &StoredTemplate, version: &Version) -> Value {
    json!({
        "versionId": version.id,
        "creationDate": version.created,
        "isDefaultVersion": version.id == template.default_version,
    })
}
