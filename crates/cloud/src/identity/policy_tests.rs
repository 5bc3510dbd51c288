use std::sync::Arc;

use super::Action::*;
use super::*;

const ARN: &str = "arn:aws:iot:us-east-1:123456789012:";

fn rules(documents: &[&str], subject: &Subject) -> Rules {
    let documents: Vec<_> =
        documents.iter().map(|text| Arc::new(Document::parse(&text.replace("ARN:", ARN)).unwrap())).collect();
    Rules::compile(&documents, subject, ARN)
}

fn lamp() -> Subject<'static> {
    Subject { client_id: "lamp", thing: Some("lamp"), attributes: &[] }
}

fn statement(effect: &str, action: &str, resource: &str) -> String {
    format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"{effect}","Action":{action},"Resource":{resource}}}]}}"#
    )
}

#[test]
fn one_statement() {
    for (action, resource, asked, name, expected) in [
        (r#""iot:Connect""#, r#""ARN:client/lamp""#, Connect, "lamp", true),
        (r#""iot:Connect""#, r#""ARN:client/lamp""#, Connect, "lamps", false),
        (r#""iot:Connect""#, r#""ARN:client/lamp""#, Publish, "lamp", false),
        (r#""iot:*""#, r#""*""#, Subscribe, "any/#", true),
        (r#""*""#, r#""*""#, Receive, "any", true),
        (r#""IOT:publish""#, r#""*""#, Publish, "any", true),
        (r#""iot:Pub*""#, r#""*""#, Publish, "any", true),
        (r#""iot:Publish""#, r#""*""#, RetainPublish, "any", false),
        (r#"["iot:Publish","iot:Receive"]"#, r#"["ARN:topic/a","ARN:topic/b"]"#, Receive, "b", true),
        (r#""iot:Publish""#, r#""ARN:topic/a/*""#, Publish, "a/b/c", true),
        (r#""iot:Publish""#, r#""ARN:topic/a/*""#, Publish, "a", false),
        // The wildcards of MQTT are ordinary characters in a policy: the filter must be named as it is subscribed.
        (r#""iot:Subscribe""#, r#""ARN:topicfilter/a/+""#, Subscribe, "a/+", true),
        (r#""iot:Subscribe""#, r#""ARN:topicfilter/a/+""#, Subscribe, "a/b", false),
        (r#""iot:Subscribe""#, r#""ARN:topicfilter/a/b""#, Subscribe, "a/+", false),
        (r#""iot:Subscribe""#, r#""ARN:topic/a""#, Subscribe, "a", false),
        (r#""iot:Publish""#, r#""ARN:topic/?""#, Publish, "ab", false),
        (r#""iot:Connect""#, r#""ARN:client/${iot:ClientId}""#, Connect, "lamp", true),
        (r#""iot:Publish""#, r#""ARN:topic/${iot:Unknown}/*""#, Publish, "x/y", false),
        (r#""iot:Publish""#, r#""arn:aws:iot:eu-west-1:123456789012:topic/a""#, Publish, "a", false),
    ] {
        let rules = rules(&[&statement("Allow", action, resource)], &lamp());
        assert_eq!(rules.allows(asked, name), expected, "{action} on {resource}: {asked:?} {name}");
    }
}

#[test]
fn deny_wins_whatever_the_order() {
    let allow = statement("Allow", r#""iot:Publish""#, r#""*""#);
    let deny = statement("Deny", r#""iot:Publish""#, r#""ARN:topic/secret/*""#);
    for documents in [[&*allow, &*deny], [&*deny, &*allow]] {
        let rules = rules(&documents, &lamp());
        assert!(rules.allows(Publish, "open"));
        assert!(!rules.allows(Publish, "secret/x"));
    }
    assert!(!rules(&[], &lamp()).allows(Publish, "open"), "nothing is allowed without a statement");
}

#[test]
fn conditions() {
    let with = |condition: &str| {
        format!(
            r#"{{"Version":"2012-10-17","Statement":{{"Effect":"Allow","Action":"iot:Connect","Resource":"*","Condition":{condition}}}}}"#
        )
    };
    let attached = with(r#"{"Bool":{"iot:Connection.Thing.IsAttached":["true"]}}"#);
    let plain_only = with(r#"{"ForAllValues:StringEquals":{"iot:ConnectAttributes":[]}}"#);
    let persistent = with(r#"{"ForAllValues:StringEquals":{"iot:ConnectAttributes":["PersistentConnect"]}}"#);
    let named = with(r#"{"StringLike":{"iot:ClientId":"la*"}}"#);
    let stranger = Subject { client_id: "other", ..Subject::default() };
    let lasting = Subject { attributes: &["PersistentConnect"], ..lamp() };
    let both = Subject { attributes: &["PersistentConnect", "LastWill"], ..lamp() };
    for (document, subject, expected) in [
        (&attached, &lamp(), true),
        (&attached, &stranger, false),
        (&plain_only, &lamp(), true),
        (&plain_only, &lasting, false),
        (&persistent, &lasting, true),
        (&persistent, &both, false),
        (&named, &lamp(), true),
        (&named, &stranger, false),
    ] {
        assert_eq!(rules(&[document], subject).allows(Connect, "x"), expected, "{document} {subject:?}");
    }
}

#[test]
fn the_shipped_policy_is_the_least() {
    let shipped =
        super::super::DEVICE_POLICY.replace("REGION", "us-east-1").replace("ACCOUNT", "123456789012");
    let own = rules(&[&shipped], &lamp());
    for (action, name) in [
        (Connect, "lamp"),
        (Publish, "$aws/things/lamp/jobs/$next/get"),
        (Publish, "$aws/things/lamp/jobs/job-1/update"),
        (Receive, "$aws/things/lamp/jobs/notify-next"),
        (Receive, "$aws/things/lamp/jobs/job-1/update/accepted"),
        (Subscribe, "$aws/things/lamp/jobs/notify-next"),
        (Subscribe, "$aws/things/lamp/jobs/+/get/+"),
        (Publish, "$aws/things/lamp/shadow/update"),
        (Receive, "$aws/things/lamp/shadow/name/sensors/update/delta"),
        (Subscribe, "$aws/things/lamp/shadow/name/sensors/get/+"),
    ] {
        assert!(own.allows(action, name), "{action:?} {name}");
    }
    for (action, name) in [
        (Connect, "other"),
        (Publish, "$aws/things/other/jobs/$next/get"),
        (Publish, "$aws/things/other/shadow/update"),
        (Subscribe, "$aws/things/+/shadow/get/+"),
        (Publish, "$aws/things/lamp2/jobs/get"),
        (Publish, "telemetry"),
        (RetainPublish, "$aws/things/lamp/jobs/$next/get"),
        (Receive, "$aws/things/other/jobs/notify"),
        (Subscribe, "$aws/things/+/jobs/notify"),
        (Subscribe, "$aws/things/lamp/#"),
        (Subscribe, "#"),
    ] {
        assert!(!own.allows(action, name), "{action:?} {name}");
    }
    let detached = rules(&[&shipped], &Subject { client_id: "lamp", ..Subject::default() });
    assert!(
        !detached.allows(Connect, "lamp"),
        "a certificate that is attached to nothing connects as nobody"
    );
}

#[test]
fn documents_that_are_refused() {
    for text in [
        "",
        "{}",
        r#"{"Version":"2012-10-17"}"#,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Maybe","Action":"*","Resource":"*"}]}"#,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*"}]}"#,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"IpAddress":{"x":"y"}}}]}"#,
    ] {
        assert!(Document::parse(text).is_err(), "{text}");
    }
}
