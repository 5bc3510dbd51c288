//! How the AWS CLI sends each operation: method and path, restated here so that the cloud's own table is tested by it.

use serde_json::Value;

const OPERATIONS: &[(&str, &str, &str)] = &[
    ("CreateJob", "PUT", "/jobs/{jobId}"),
    ("DescribeJob", "GET", "/jobs/{jobId}"),
    ("GetJobDocument", "GET", "/jobs/{jobId}/job-document"),
    ("ListJobs", "GET", "/jobs"),
    ("UpdateJob", "PATCH", "/jobs/{jobId}"),
    ("CancelJob", "PUT", "/jobs/{jobId}/cancel"),
    ("DeleteJob", "DELETE", "/jobs/{jobId}"),
    ("AssociateTargetsWithJob", "POST", "/jobs/{jobId}/targets"),
    ("ListJobExecutionsForJob", "GET", "/jobs/{jobId}/things"),
    ("ListJobExecutionsForThing", "GET", "/things/{thingName}/jobs"),
    ("DescribeJobExecution", "GET", "/things/{thingName}/jobs/{jobId}"),
    ("CancelJobExecution", "PUT", "/things/{thingName}/jobs/{jobId}/cancel"),
    ("DeleteJobExecution", "DELETE", "/things/{thingName}/jobs/{jobId}/executionNumber/{executionNumber}"),
    ("CreateJobTemplate", "PUT", "/job-templates/{jobTemplateId}"),
    ("DescribeJobTemplate", "GET", "/job-templates/{jobTemplateId}"),
    ("ListJobTemplates", "GET", "/job-templates"),
    ("DeleteJobTemplate", "DELETE", "/job-templates/{jobTemplateId}"),
    ("ListManagedJobTemplates", "GET", "/managed-job-templates"),
    ("DescribeManagedJobTemplate", "GET", "/managed-job-templates/{templateName}"),
    ("CreateThing", "POST", "/things/{thingName}"),
    ("DescribeThing", "GET", "/things/{thingName}"),
    ("UpdateThing", "PATCH", "/things/{thingName}"),
    ("DeleteThing", "DELETE", "/things/{thingName}"),
    ("ListThings", "GET", "/things"),
    ("CreateThingGroup", "POST", "/thing-groups/{thingGroupName}"),
    ("DescribeThingGroup", "GET", "/thing-groups/{thingGroupName}"),
    ("DeleteThingGroup", "DELETE", "/thing-groups/{thingGroupName}"),
    ("AddThingToThingGroup", "PUT", "/thing-groups/addThingToThingGroup"),
    ("RemoveThingFromThingGroup", "PUT", "/thing-groups/removeThingFromThingGroup"),
    ("ListThingsInThingGroup", "GET", "/thing-groups/{thingGroupName}/things"),
    ("ListThingGroupsForThing", "GET", "/things/{thingName}/thing-groups"),
    ("DescribeEndpoint", "GET", "/endpoint"),
    ("UpdateEventConfigurations", "PATCH", "/event-configurations"),
    ("DescribeEventConfigurations", "GET", "/event-configurations"),
    ("GetPackageConfiguration", "GET", "/package-configuration"),
    ("UpdatePackageConfiguration", "PATCH", "/package-configuration"),
    ("ListThingGroups", "GET", "/thing-groups"),
    ("UpdateThingGroup", "PATCH", "/thing-groups/{thingGroupName}"),
    ("CreateKeysAndCertificate", "POST", "/keys-and-certificate"),
    ("CreateCertificateFromCsr", "POST", "/certificates"),
    ("RegisterCertificateWithoutCA", "POST", "/certificate/register-no-ca"),
    ("ListCertificates", "GET", "/certificates"),
    ("DescribeCertificate", "GET", "/certificates/{certificateId}"),
    ("UpdateCertificate", "PUT", "/certificates/{certificateId}"),
    ("DeleteCertificate", "DELETE", "/certificates/{certificateId}"),
    ("AttachThingPrincipal", "PUT", "/things/{thingName}/principals"),
    ("DetachThingPrincipal", "DELETE", "/things/{thingName}/principals"),
    ("ListThingPrincipals", "GET", "/things/{thingName}/principals"),
    ("ListPrincipalThings", "GET", "/principals/things"),
    ("CreatePolicy", "POST", "/policies/{policyName}"),
    ("GetPolicy", "GET", "/policies/{policyName}"),
    ("ListPolicies", "GET", "/policies"),
    ("DeletePolicy", "DELETE", "/policies/{policyName}"),
    ("AttachPolicy", "PUT", "/target-policies/{policyName}"),
    ("DetachPolicy", "POST", "/target-policies/{policyName}"),
    ("ListAttachedPolicies", "POST", "/attached-policies/{target}"),
    ("ListTargetsForPolicy", "POST", "/policy-targets/{policyName}"),
    ("AttachPrincipalPolicy", "PUT", "/principal-policies/{policyName}"),
    ("DetachPrincipalPolicy", "DELETE", "/principal-policies/{policyName}"),
    ("ListPrincipalPolicies", "GET", "/principal-policies"),
    ("CreateProvisioningTemplate", "POST", "/provisioning-templates"),
    ("DescribeProvisioningTemplate", "GET", "/provisioning-templates/{templateName}"),
    ("ListProvisioningTemplates", "GET", "/provisioning-templates"),
    ("UpdateProvisioningTemplate", "PATCH", "/provisioning-templates/{templateName}"),
    ("DeleteProvisioningTemplate", "DELETE", "/provisioning-templates/{templateName}"),
    ("CreateProvisioningTemplateVersion", "POST", "/provisioning-templates/{templateName}/versions"),
    ("ListProvisioningTemplateVersions", "GET", "/provisioning-templates/{templateName}/versions"),
    (
        "DescribeProvisioningTemplateVersion",
        "GET",
        "/provisioning-templates/{templateName}/versions/{versionId}",
    ),
    (
        "DeleteProvisioningTemplateVersion",
        "DELETE",
        "/provisioning-templates/{templateName}/versions/{versionId}",
    ),
];

/// Those of `iot-data`.
const SHADOWS: &[(&str, &str, &str)] = &[
    ("GetThingShadow", "GET", "/things/{thingName}/shadow"),
    ("UpdateThingShadow", "POST", "/things/{thingName}/shadow"),
    ("DeleteThingShadow", "DELETE", "/things/{thingName}/shadow"),
    ("ListNamedShadowsForThing", "GET", "/api/things/shadow/ListNamedShadowsForThing/{thingName}"),
];

/// Method and path of an operation: members that the path has no place for go into the query.
pub fn request(operation: &str, params: &Value) -> (&'static str, String) {
    let found = OPERATIONS.iter().chain(SHADOWS).find(|(name, ..)| *name == operation);
    let (_, method, template) = found.unwrap_or_else(|| panic!("{operation} is not in the table"));
    let mut path = (*template).to_owned();
    let mut separator = '?';
    for (name, value) in params.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let place = format!("{{{name}}}");
        if path.contains(&place) {
            path = path.replace(&place, &encoded(&value));
        } else {
            path.push_str(&format!("{separator}{name}={}", encoded(&value)));
            separator = '&';
        }
    }
    (method, path)
}

/// Everything but RFC 3986's unreserved characters, as SDKs do.
pub fn encoded(text: &str) -> String {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let encode =
        |byte: u8| if unreserved(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encode).collect()
}

/// Every operation that the tests know.
pub fn names() -> impl Iterator<Item = &'static str> {
    OPERATIONS.iter().map(|(name, ..)| *name)
}
