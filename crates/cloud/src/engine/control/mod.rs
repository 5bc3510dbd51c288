//! The control plane by the names of its operations. Each one checks everything first and then writes, so that a
//! refused call has changed nothing.

pub(super) mod account;
mod executions;
mod groups;
mod jobs;
mod managed;
mod page;
pub(super) mod templates;
mod things;

use serde_json::{Map, Value, json};

use super::Engine;
use super::interface::{ApiError, Request, Time};
use super::validate::Input;

type Result<T = Value> = std::result::Result<T, ApiError>;

impl Engine {
    /// A call of the control plane (and of the registry), by its operation's name.
    pub fn control(&mut self, now: Time, request: &Request) -> Result {
        self.fire_due(now);
        let result = self.dispatch(now, request);
        self.settle(now);
        result
    }

    fn dispatch(&mut self, now: Time, request: &Request) -> Result {
        let input = &Input::request(request)?;
        match request.op.as_str() {
            "CreateJob" => self.create_job(now, input),
            "DescribeJob" => self.describe_job(now, input),
            "GetJobDocument" => self.get_job_document(input),
            "ListJobs" => self.list_jobs(input),
            "UpdateJob" => self.update_job(now, input),
            "CancelJob" => self.cancel_job_call(now, input),
            "DeleteJob" => self.delete_job_call(now, input),
            "AssociateTargetsWithJob" => self.associate_targets(now, input),
            "ListJobExecutionsForJob" => self.list_executions_for_job(input),
            "ListJobExecutionsForThing" => self.list_executions_for_thing(input),
            "DescribeJobExecution" => self.describe_execution(now, input),
            "CancelJobExecution" => self.cancel_execution(now, input),
            "DeleteJobExecution" => self.delete_execution(now, input),
            "CreateJobTemplate" => self.create_template(now, input),
            "DescribeJobTemplate" => self.describe_template(input),
            "ListJobTemplates" => self.list_templates(input),
            "DeleteJobTemplate" => self.delete_template(input),
            "ListManagedJobTemplates" => self.list_managed_templates(input),
            "DescribeManagedJobTemplate" => self.describe_managed_template(input),
            "CreateThing" => self.create_thing(input),
            "DescribeThing" => self.describe_thing(input),
            "UpdateThing" => self.update_thing(input),
            "DeleteThing" => self.delete_thing(now, input),
            "ListThings" => self.list_things(input),
            "CreateThingGroup" => self.create_group(now, input),
            "DescribeThingGroup" => self.describe_group(input),
            "UpdateThingGroup" => self.update_group(input),
            "DeleteThingGroup" => self.delete_group(now, input),
            "ListThingGroups" => self.list_groups(input),
            "AddThingToThingGroup" => self.add_to_group(now, input),
            "RemoveThingFromThingGroup" => self.remove_from_group(now, input),
            "ListThingsInThingGroup" => self.list_things_in_group(input),
            "ListThingGroupsForThing" => self.list_groups_for_thing(input),
            "DescribeEndpoint" => self.describe_endpoint(input),
            "UpdateEventConfigurations" => self.update_events(now, input),
            "DescribeEventConfigurations" => self.describe_events(),
            "GetPackageConfiguration" => Ok(self.package_configuration()),
            "UpdatePackageConfiguration" => self.update_package_configuration(input),
            other => Err(ApiError::not_found(format!("There is no operation {other}"))),
        }
    }
}

/// Adds a member to an answer, if it has a value.
fn put(members: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        members.insert(name.to_owned(), value.into());
    }
}

/// A literal object, with the members of `more` that are not null.
fn merged(base: Value, more: Value) -> Map<String, Value> {
    let (Value::Object(mut base), Value::Object(more)) = (base, more) else { return Map::new() };
    base.extend(more.into_iter().filter(|(_, value)| !value.is_null()));
    base
}

fn empty() -> Value {
    json!({})
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::invalid_request(message)
}
