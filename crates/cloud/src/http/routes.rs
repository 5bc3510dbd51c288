//! Which operation a method and a path mean: rest-json's `requestUri` of each operation, as one table.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use crate::cloud::Plane;

/// Method, path, operation. The first that matches counts.
type Route = (&'static str, &'static str, &'static str);

const CONTROL: &[Route] = &[
    // Jobs
    ("GET", "/jobs", "ListJobs"),
    ("PUT", "/jobs/{jobId}", "CreateJob"),
    ("GET", "/jobs/{jobId}", "DescribeJob"),
    ("PATCH", "/jobs/{jobId}", "UpdateJob"),
    ("DELETE", "/jobs/{jobId}", "DeleteJob"),
    ("GET", "/jobs/{jobId}/job-document", "GetJobDocument"),
    ("PUT", "/jobs/{jobId}/cancel", "CancelJob"),
    ("POST", "/jobs/{jobId}/targets", "AssociateTargetsWithJob"),
    ("GET", "/jobs/{jobId}/things", "ListJobExecutionsForJob"),
    ("GET", "/things/{thingName}/jobs", "ListJobExecutionsForThing"),
    ("GET", "/things/{thingName}/jobs/{jobId}", "DescribeJobExecution"),
    ("PUT", "/things/{thingName}/jobs/{jobId}/cancel", "CancelJobExecution"),
    ("DELETE", "/things/{thingName}/jobs/{jobId}/executionNumber/{executionNumber}", "DeleteJobExecution"),
    // Job templates
    ("GET", "/job-templates", "ListJobTemplates"),
    ("PUT", "/job-templates/{jobTemplateId}", "CreateJobTemplate"),
    ("GET", "/job-templates/{jobTemplateId}", "DescribeJobTemplate"),
    ("DELETE", "/job-templates/{jobTemplateId}", "DeleteJobTemplate"),
    ("GET", "/managed-job-templates", "ListManagedJobTemplates"),
    ("GET", "/managed-job-templates/{templateName}", "DescribeManagedJobTemplate"),
    // Things and groups
    ("GET", "/things", "ListThings"),
    ("POST", "/things/{thingName}", "CreateThing"),
    ("GET", "/things/{thingName}", "DescribeThing"),
    ("PATCH", "/things/{thingName}", "UpdateThing"),
    ("DELETE", "/things/{thingName}", "DeleteThing"),
    ("GET", "/things/{thingName}/thing-groups", "ListThingGroupsForThing"),
    ("GET", "/thing-groups", "ListThingGroups"),
    ("PUT", "/thing-groups/addThingToThingGroup", "AddThingToThingGroup"),
    ("PUT", "/thing-groups/removeThingFromThingGroup", "RemoveThingFromThingGroup"),
    ("POST", "/thing-groups/{thingGroupName}", "CreateThingGroup"),
    ("GET", "/thing-groups/{thingGroupName}", "DescribeThingGroup"),
    ("PATCH", "/thing-groups/{thingGroupName}", "UpdateThingGroup"),
    ("DELETE", "/thing-groups/{thingGroupName}", "DeleteThingGroup"),
    ("GET", "/thing-groups/{thingGroupName}/things", "ListThingsInThingGroup"),
    // The account
    ("GET", "/endpoint", "DescribeEndpoint"),
    ("GET", "/event-configurations", "DescribeEventConfigurations"),
    ("PATCH", "/event-configurations", "UpdateEventConfigurations"),
    ("GET", "/package-configuration", "GetPackageConfiguration"),
    ("PATCH", "/package-configuration", "UpdatePackageConfiguration"),
    // Role aliases
    ("GET", "/role-aliases", "ListRoleAliases"),
    ("POST", "/role-aliases/{roleAlias}", "CreateRoleAlias"),
    ("GET", "/role-aliases/{roleAlias}", "DescribeRoleAlias"),
    ("PUT", "/role-aliases/{roleAlias}", "UpdateRoleAlias"),
    ("DELETE", "/role-aliases/{roleAlias}", "DeleteRoleAlias"),
    // Certificates
    ("POST", "/keys-and-certificate", "CreateKeysAndCertificate"),
    ("POST", "/certificates", "CreateCertificateFromCsr"),
    ("GET", "/certificates", "ListCertificates"),
    ("GET", "/certificates/{certificateId}", "DescribeCertificate"),
    ("PUT", "/certificates/{certificateId}", "UpdateCertificate"),
    ("DELETE", "/certificates/{certificateId}", "DeleteCertificate"),
    ("POST", "/certificate/register", "RegisterCertificate"),
    ("POST", "/certificate/register-no-ca", "RegisterCertificateWithoutCA"),
    ("PUT", "/things/{thingName}/principals", "AttachThingPrincipal"),
    ("DELETE", "/things/{thingName}/principals", "DetachThingPrincipal"),
    ("GET", "/things/{thingName}/principals", "ListThingPrincipals"),
    ("GET", "/principals/things", "ListPrincipalThings"),
    // Provisioning templates
    ("GET", "/provisioning-templates", "ListProvisioningTemplates"),
    ("POST", "/provisioning-templates", "CreateProvisioningTemplate"),
    ("GET", "/provisioning-templates/{templateName}", "DescribeProvisioningTemplate"),
    ("PATCH", "/provisioning-templates/{templateName}", "UpdateProvisioningTemplate"),
    ("DELETE", "/provisioning-templates/{templateName}", "DeleteProvisioningTemplate"),
    ("GET", "/provisioning-templates/{templateName}/versions", "ListProvisioningTemplateVersions"),
    ("POST", "/provisioning-templates/{templateName}/versions", "CreateProvisioningTemplateVersion"),
    (
        "GET",
        "/provisioning-templates/{templateName}/versions/{versionId}",
        "DescribeProvisioningTemplateVersion",
    ),
    (
        "DELETE",
        "/provisioning-templates/{templateName}/versions/{versionId}",
        "DeleteProvisioningTemplateVersion",
    ),
    // Policies
    ("GET", "/policies", "ListPolicies"),
    ("POST", "/policies/{policyName}", "CreatePolicy"),
    ("GET", "/policies/{policyName}", "GetPolicy"),
    ("DELETE", "/policies/{policyName}", "DeletePolicy"),
    ("PUT", "/target-policies/{policyName}", "AttachPolicy"),
    ("POST", "/target-policies/{policyName}", "DetachPolicy"),
    ("POST", "/attached-policies/{target}", "ListAttachedPolicies"),
    ("POST", "/policy-targets/{policyName}", "ListTargetsForPolicy"),
    ("PUT", "/principal-policies/{policyName}", "AttachPrincipalPolicy"),
    ("DELETE", "/principal-policies/{policyName}", "DetachPrincipalPolicy"),
    ("GET", "/principal-policies", "ListPrincipalPolicies"),
];

const DEVICE: &[Route] = &[
    ("GET", "/things/{thingName}/jobs", "GetPendingJobExecutions"),
    ("PUT", "/things/{thingName}/jobs/$next", "StartNextPendingJobExecution"),
    ("GET", "/things/{thingName}/jobs/{jobId}", "DescribeJobExecution"),
    ("POST", "/things/{thingName}/jobs/{jobId}", "UpdateJobExecution"),
];

const DATA: &[Route] = &[
    ("GET", "/things/{thingName}/shadow", "GetThingShadow"),
    ("POST", "/things/{thingName}/shadow", "UpdateThingShadow"),
    ("DELETE", "/things/{thingName}/shadow", "DeleteThingShadow"),
    ("GET", "/api/things/shadow/ListNamedShadowsForThing/{thingName}", "ListNamedShadowsForThing"),
];

/// Whether a path is one of shadows, by whatever method. They are told from the rest by their paths, because not
/// every client signs with the name of the service.
pub(crate) fn is_data(path: &str) -> bool {
    let segments: Vec<String> = path.trim_start_matches('/').split('/').map(str::to_owned).collect();
    DATA.iter().any(|(_, template, _)| matched(template, &segments).is_some())
}

/// The operation and the members that are in the path; none for what AWS calls an unknown operation.
/// Segments are decoded after the path was split, so that an encoded slash belongs to a member.
pub(crate) fn find(
    plane: Plane,
    method: &str,
    path: &str,
) -> Option<(&'static str, BTreeMap<String, String>)> {
    let table = match plane {
        Plane::Control => CONTROL,
        Plane::Device => DEVICE,
        Plane::Data => DATA,
    };
    let path = path.strip_prefix('/')?;
    let segments: Option<Vec<String>> = path
        .split('/')
        .map(|segment| percent_decode_str(segment).decode_utf8().ok().map(String::from))
        .collect();
    let segments = segments?;
    table
        .iter()
        .filter(|(wanted, ..)| *wanted == method)
        .find_map(|(_, template, operation)| Some((*operation, matched(template, &segments)?)))
}

fn matched(template: &str, segments: &[String]) -> Option<BTreeMap<String, String>> {
    let mut members = BTreeMap::new();
    let mut wanted = template.trim_start_matches('/').split('/');
    for segment in segments {
        let wanted = wanted.next()?;
        match wanted.strip_prefix('{').and_then(|wanted| wanted.strip_suffix('}')) {
            Some(_) if segment.is_empty() => return None,
            Some(member) => drop(members.insert(member.to_owned(), segment.clone())),
            None if wanted == segment => {}
            None => return None,
        }
    }
    wanted.next().is_none().then_some(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_operations_and_members() {
        let find = |plane, method, path| {
            find(plane, method, path).map(|(operation, members)| {
                (
                    operation,
                    members
                        .into_iter()
                        .map(|(name, value)| format!("{name}={value}"))
                        .collect::<Vec<_>>()
                        .join(","),
                )
            })
        };
        use Plane::{Control, Device};
        for (plane, method, path, operation, members) in [
            (Control, "PUT", "/jobs/a", "CreateJob", "jobId=a"),
            (Control, "GET", "/jobs", "ListJobs", ""),
            (Control, "GET", "/things/t/jobs", "ListJobExecutionsForThing", "thingName=t"),
            (Device, "GET", "/things/t/jobs", "GetPendingJobExecutions", "thingName=t"),
            (Device, "PUT", "/things/t/jobs/%24next", "StartNextPendingJobExecution", "thingName=t"),
            (Device, "PUT", "/things/t/jobs/$next", "StartNextPendingJobExecution", "thingName=t"),
            (Device, "GET", "/things/t/jobs/$next", "DescribeJobExecution", "jobId=$next,thingName=t"),
            (Control, "PUT", "/thing-groups/addThingToThingGroup", "AddThingToThingGroup", ""),
            (
                Control,
                "POST",
                "/attached-policies/arn%3Aaws%3Aiot%3A%3A1%3Acert%2Fab",
                "ListAttachedPolicies",
                "target=arn:aws:iot::1:cert/ab",
            ),
        ] {
            assert_eq!(find(plane, method, path), Some((operation, members.to_owned())), "{method} {path}");
        }
    }

    #[test]
    fn what_is_in_no_table_is_no_operation() {
        for (method, path) in
            [("GET", "/"), ("PUT", "/jobs/"), ("POST", "/jobs/a"), ("GET", "/jobs/a/b"), ("GET", "/jobs/%FF")]
        {
            assert_eq!(find(Plane::Control, method, path), None, "{method} {path}");
        }
    }
}
