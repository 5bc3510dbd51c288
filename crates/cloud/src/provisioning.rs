//! The fleet provisioning service: certificates are the identity's, things are the engine's, and a registration is both.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::cloud::Cloud;
use crate::engine::{ApiError, ConnectionId, Engine, Output, Request, Time};
use crate::identity::provisioning::{Ask, Registration, Rejected, ask};
use crate::identity::{Override, ThingPlan};

type Answer = Result<Value, Rejected>;

impl Cloud {
    /// A request of a client, over MQTT or, without a connection, as if it had come that way.
    pub(crate) fn provisioning(&self, to: Option<ConnectionId>, client: &str, topic: &str, payload: &[u8]) {
        let Some((asked, format)) = ask(topic) else { return };
        let answer = match self.faults.on_request(client, topic) {
            Some(code) => Err(refusal(&code)),
            None if format != "json" => {
                let message = "This cloud has no CBOR: use the topics that end with /json";
                Err(Rejected::new(400, "InvalidPayload", message))
            }
            None => self.with_engine(Some(client), |engine, now| self.answer(engine, now, &asked, payload)),
        };
        let (verdict, payload) = match answer {
            Ok(payload) => ("accepted", payload),
            Err(rejected) => ("rejected", rejected.payload()),
        };
        let topic = format!("{topic}/{verdict}");
        self.send(Some(client), Output::Answer { to, thing: String::new(), topic, payload });
    }

    fn answer(&self, engine: &mut Engine, now: Time, asked: &Ask<'_>, payload: &[u8]) -> Answer {
        let Ask::Register { template } = asked else {
            return self.identity.create_pending(now.secs(), asked, payload);
        };
        let registration = self.identity.plan_registration(now.secs(), template, payload)?;
        if let Some(thing) = &registration.plan.thing {
            provide(engine, now, thing).map_err(conflict)?;
        }
        self.identity.register(now.secs(), &registration);
        Ok(answer(&registration))
    }
}

fn answer(Registration { plan, .. }: &Registration) -> Value {
    let mut answer = Map::from_iter([(
        "deviceConfiguration".to_owned(),
        Value::Object(plan.device_configuration.clone()),
    )]);
    if let Some(thing) = &plan.thing {
        answer.insert("thingName".to_owned(), thing.name.as_str().into());
    }
    answer.into()
}

/// The thing as the template has it; of one that is there already, as much as its override settings say.
fn provide(engine: &mut Engine, now: Time, thing: &ThingPlan) -> Result<(), ApiError> {
    let name = thing.name.as_str();
    let old = call(engine, now, "DescribeThing", &[("thingName", name)], json!({}));
    let attributes = |merge: bool| json!({"attributes": thing.attributes, "merge": merge});
    match old {
        Err(_) => {
            let mut body = json!({"attributePayload": attributes(false)});
            put(&mut body, "thingTypeName", thing.type_name.as_deref());
            put(&mut body, "billingGroupName", thing.billing_group.as_deref());
            call(engine, now, "CreateThing", &[("thingName", name)], body)?;
        }
        Ok(old) => {
            let differs = old.get("attributes") != Some(&json!(thing.attributes));
            let other_type = thing.type_name.as_deref() != old.get("thingTypeName").and_then(Value::as_str);
            if (differs && thing.on_attributes == Override::Fail)
                || (other_type && thing.on_type == Override::Fail)
            {
                let message = format!("Thing {name} exists with other properties");
                return Err(ApiError { http: 409, kind: "", message, extra: Map::new() });
            }
            let mut body = json!({});
            match thing.on_attributes {
                Override::Merge => put(&mut body, "attributePayload", Some(attributes(true))),
                Override::Replace => put(&mut body, "attributePayload", Some(attributes(false))),
                Override::DoNothing | Override::Fail => {}
            }
            if thing.on_type == Override::Replace {
                put(&mut body, "thingTypeName", thing.type_name.as_deref());
            }
            if body != json!({}) {
                call(engine, now, "UpdateThing", &[("thingName", name)], body)?;
            }
            if thing.on_groups == Override::DoNothing {
                return Ok(());
            }
        }
    }
    for group in &thing.groups {
        let body = json!({"thingGroupName": group, "thingName": name});
        call(engine, now, "AddThingToThingGroup", &[], body)?;
    }
    Ok(())
}

fn call(
    engine: &mut Engine,
    now: Time,
    op: &str,
    params: &[(&str, &str)],
    body: Value,
) -> Result<Value, ApiError> {
    let params: BTreeMap<_, _> =
        params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    engine.control(now, &Request { op: op.to_owned(), params, body })
}

fn put(body: &mut Value, member: &str, value: Option<impl Into<Value>>) {
    if let (Some(value), Some(body)) = (value, body.as_object_mut()) {
        body.insert(member.to_owned(), value.into());
    }
}

fn conflict(error: ApiError) -> Rejected {
    let code = if error.http == 409 { "ResourceConflict" } else { "InvalidParameters" };
    Rejected::new(error.http, code, error.message)
}

/// What a fault asks for.
fn refusal(code: &str) -> Rejected {
    let status = match code {
        "RequestThrottled" | "Throttling" => 429,
        "InternalError" => 500,
        "ServiceUnavailable" => 503,
        "AccessDenied" => 403,
        "ResourceNotFound" => 404,
        _ => 400,
    };
    Rejected::new(status, code, "Refused on purpose")
}
