//! Random conversations of operators and devices. After each step the invariants hold as far as anybody can see
//! from outside, and an engine that was loaded from the rows of the step before has done and said the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::support::{Bucket, Cloud, arn, job_body, settings};
use crate::engine::{Engine, Time};

const THINGS: [&str; 3] = ["t0", "t1", "t2"];
const JOBS: [&str; 4] = ["j0", "j1", "j2", "j3"];
/// `g1` is below `g0`.
const GROUPS: [&str; 2] = ["g0", "g1"];

#[derive(Clone, Debug)]
enum Step {
    Control(&'static str, Value, Value),
    Device(&'static str, String, Value),
    Wait(i64),
}

fn pick(names: &'static [&'static str]) -> impl Strategy<Value = &'static str> + Clone {
    proptest::sample::select(names)
}

fn config() -> impl Strategy<Value = Value> {
    let continuous = prop_oneof![Just(json!({})), Just(json!({"targetSelection": "CONTINUOUS"}))];
    let rollout = prop_oneof![
        2 => Just(json!({})),
        1 => Just(json!({"jobExecutionsRolloutConfig": {"maximumPerMinute": 1}})),
    ];
    let retry = |kind: &str, n: i64| json!({"jobExecutionsRetryConfig": {"criteriaList": [{"failureType": kind, "numberOfRetries": n}]}});
    let retry = prop_oneof![Just(json!({})), Just(retry("FAILED", 1)), Just(retry("ALL", 2))];
    let timeout =
        prop_oneof![Just(json!({})), Just(json!({"timeoutConfig": {"inProgressTimeoutInMinutes": 2}}))];
    let abort = json!({"abortConfig": {"criteriaList": [{"failureType": "ALL", "action": "CANCEL",
        "thresholdPercentage": 60, "minNumberOfExecutedThings": 2}]}});
    let abort = prop_oneof![3 => Just(json!({})), 1 => Just(abort)];
    let windows = json!([{"startTime": "cron(0/10 * * * ? *)", "durationInMinutes": 4}]);
    let schedule = prop_oneof![
        5 => Just(json!({})),
        1 => Just(json!({"schedulingConfig": {"maintenanceWindows": windows}})),
    ];
    let parts = (continuous, rollout, retry, timeout, abort, schedule);
    parts.prop_map(|(a, b, c, d, e, f)| {
        let mut all = serde_json::Map::new();
        [a, b, c, d, e, f].into_iter().for_each(|part| all.extend(part.as_object().unwrap().clone()));
        Value::Object(all)
    })
}

fn control() -> impl Strategy<Value = Step> {
    let job_and_thing = (pick(&JOBS), pick(&THINGS));
    let target =
        prop_oneof![pick(&["thing/t0", "thing/t1", "thing/t2"]), pick(&["thinggroup/g0", "thinggroup/g1"])];
    let member =
        (pick(&GROUPS), pick(&THINGS)).prop_map(|(g, t)| json!({"thingGroupName": g, "thingName": t}));
    let call = Step::Control;
    prop_oneof![
        6 => (pick(&JOBS), target.clone(), config())
            .prop_map(move |(j, t, c)| call("CreateJob", json!({"jobId": j}), job_body(&[t], c))),
        2 => (pick(&JOBS), any::<bool>())
            .prop_map(move |(j, f)| call("CancelJob", json!({"jobId": j, "force": f}), Value::Null)),
        2 => (pick(&JOBS), any::<bool>())
            .prop_map(move |(j, f)| call("DeleteJob", json!({"jobId": j, "force": f}), Value::Null)),
        2 => (job_and_thing.clone(), any::<bool>()).prop_map(move |((j, t), f)| {
            call("CancelJobExecution", json!({"jobId": j, "thingName": t, "force": f}), Value::Null)
        }),
        2 => (job_and_thing, 1..3i64, any::<bool>()).prop_map(move |((j, t), n, f)| {
            let params = json!({"jobId": j, "thingName": t, "executionNumber": n, "force": f});
            call("DeleteJobExecution", params, Value::Null)
        }),
        1 => (pick(&JOBS), target)
            .prop_map(move |(j, t)| call("AssociateTargetsWithJob", json!({"jobId": j}), json!({"targets": [arn(t)]}))),
        3 => member.clone().prop_map(move |m| call("AddThingToThingGroup", Value::Null, m)),
        2 => member.prop_map(move |m| call("RemoveThingFromThingGroup", Value::Null, m)),
        1 => pick(&THINGS).prop_map(move |t| call("DeleteThing", json!({"thingName": t}), Value::Null)),
        2 => pick(&THINGS).prop_map(move |t| call("CreateThing", json!({"thingName": t}), Value::Null)),
        1 => Just(call("DeleteThingGroup", json!({"thingGroupName": "g1"}), Value::Null)),
        1 => Just(call("CreateThingGroup", json!({"thingGroupName": "g1"}), json!({"parentGroupName": "g0"}))),
    ]
}

fn device() -> impl Strategy<Value = Step> {
    let statuses =
        pick(&["IN_PROGRESS", "IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED", "QUEUED", "CANCELED"]);
    let step = prop_oneof![3 => Just(Value::Null), 1 => Just(json!(1)), 1 => Just(json!(-1))];
    let version = prop_oneof![3 => Just(Value::Null), 1 => (1..4i64).prop_map(|v| json!(v))];
    prop_oneof![
        3 => (pick(&THINGS), any::<bool>()).prop_map(|(t, timed)| {
            let payload = if timed { json!({"stepTimeoutInMinutes": 3}) } else { json!({}) };
            Step::Device(t, "start-next".to_owned(), payload)
        }),
        6 => (pick(&THINGS), pick(&JOBS), statuses, step, version).prop_map(|(t, j, s, m, v)| {
            let payload = json!({"status": s, "stepTimeoutInMinutes": m, "expectedVersion": v});
            Step::Device(t, format!("{j}/update"), payload)
        }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![4 => control(), 5 => device(), 2 => (1..200i64).prop_map(Step::Wait)];
    proptest::collection::vec(step, 1..60)
}

/// One execution as the lists show it: (job, thing, number).
type Run = (String, String, i64);

/// All that can be seen of an engine without changing it.
#[derive(Debug, PartialEq)]
struct Seen {
    jobs: BTreeMap<String, Value>,
    runs: BTreeMap<Run, Value>,
    heads: BTreeMap<String, Value>,
    pending: BTreeMap<String, Vec<(String, i64)>>,
    next_timer: Option<Time>,
}

fn look(cloud: &mut Cloud) -> Seen {
    let listed = cloud.ok("ListJobs", json!({}), Value::Null)["jobs"].clone();
    let ids: Vec<String> = listed.as_array().unwrap().iter().map(|job| text(&job["jobId"])).collect();
    let (mut jobs, mut runs) = (BTreeMap::new(), BTreeMap::new());
    for id in ids {
        jobs.insert(id.clone(), cloud.describe_job(&id));
        let listed = cloud.ok("ListJobExecutionsForJob", json!({"jobId": id}), Value::Null);
        for entry in listed["executionSummaries"].as_array().unwrap() {
            let thing = text(&entry["thingArn"]).rsplit('/').next().unwrap().to_owned();
            let number = entry["jobExecutionSummary"]["executionNumber"].as_i64().unwrap();
            let params = json!({"jobId": id, "thingName": thing, "executionNumber": number});
            let run = cloud.ok("DescribeJobExecution", params, Value::Null)["execution"].clone();
            runs.insert((id.clone(), thing, number), run);
        }
    }
    let (mut heads, mut pending) = (BTreeMap::new(), BTreeMap::new());
    for thing in THINGS {
        heads.insert(thing.to_owned(), cloud.answer(thing, "$next/get", json!({})));
        let answer = cloud.answer(thing, "get", json!({}));
        let lists = [&answer["inProgressJobs"], &answer["queuedJobs"]];
        let entries = lists.into_iter().flat_map(|list| list.as_array().cloned().unwrap_or_default());
        let ids = entries.map(|entry| (text(&entry["jobId"]), entry["executionNumber"].as_i64().unwrap()));
        pending.insert(thing.to_owned(), ids.collect());
    }
    Seen { jobs, runs, heads, pending, next_timer: cloud.engine.next_timer() }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn is_pending(run: &Value) -> bool {
    matches!(run["status"].as_str(), Some("QUEUED" | "IN_PROGRESS"))
}

type Messages = Vec<(String, Value)>;

/// Does a step: the answer of the control plane, and the messages that the step led to.
fn act(cloud: &mut Cloud, step: &Step) -> (Option<Result<Value, &'static str>>, Messages) {
    let result = match step {
        Step::Control(op, params, body) => {
            Some(cloud.call(op, params.clone(), body.clone()).map_err(|e| e.kind))
        }
        Step::Device(thing, topic, payload) => {
            let topic = format!("$aws/things/{thing}/jobs/{topic}");
            cloud.engine.device(cloud.now, thing, Some(1), &topic, payload.to_string().as_bytes());
            None
        }
        Step::Wait(secs) => {
            cloud.now = cloud.now.plus_secs(*secs);
            cloud.engine.fire_due(cloud.now);
            None
        }
    };
    (result, cloud.drain())
}

/// The queue by the contract's own words, from the control plane's lists.
fn queue(seen: &Seen, thing: &str) -> Vec<(String, i64)> {
    let mut runs: Vec<(&Run, &Value)> =
        seen.runs.iter().filter(|((_, name, _), run)| name == thing && is_pending(run)).collect();
    runs.retain(|((job, ..), _)| seen.jobs[job]["status"] != "SCHEDULED");
    runs.sort_by_key(|((job, ..), run)| {
        // What was queued at one moment is in an order that the lists do not show: the device's is taken for it.
        let place = seen.pending[thing].iter().position(|(pending, _)| pending == job);
        (run["status"] == "QUEUED", run["queuedAt"].as_i64().unwrap(), place)
    });
    runs.into_iter().map(|((job, _, number), _)| (job.clone(), *number)).collect()
}

fn check_state(seen: &Seen) -> Result<(), TestCaseError> {
    for thing in THINGS {
        let queue = queue(seen, thing);
        let pending = &seen.pending[thing];
        if seen.heads[thing].get("code").is_some() {
            prop_assert!(queue.is_empty(), "{thing} does not exist, and has {queue:?}");
            continue;
        }
        prop_assert_eq!(queue.iter().collect::<BTreeSet<_>>(), pending.iter().collect::<BTreeSet<_>>());
        let head = seen.heads[thing]
            .get("execution")
            .map(|e| (text(&e["jobId"]), e["executionNumber"].as_i64().unwrap()));
        prop_assert_eq!(head.as_ref(), pending.first());
        let started = |run: &(String, i64)| {
            let run = &seen.runs[&(run.0.clone(), thing.to_owned(), run.1)];
            (run["status"] == "QUEUED", run["queuedAt"].as_i64().unwrap())
        };
        prop_assert!(pending.iter().map(started).is_sorted(), "{pending:?}");
    }
    for (id, job) in &seen.jobs {
        let mut latest: BTreeMap<&str, &Value> = BTreeMap::new();
        for ((_, thing, _), run) in seen.runs.iter().filter(|((job, ..), _)| job == id) {
            latest.insert(thing, run); // ascending by number: the last one stays
        }
        let mut counted = 0;
        for (status, member) in [
            ("QUEUED", "Queued"),
            ("IN_PROGRESS", "InProgress"),
            ("SUCCEEDED", "Succeeded"),
            ("FAILED", "Failed"),
            ("TIMED_OUT", "TimedOut"),
            ("REJECTED", "Rejected"),
            ("REMOVED", "Removed"),
            ("CANCELED", "Canceled"),
        ] {
            let expected = latest.values().filter(|run| run["status"] == status).count();
            let shown = &job["jobProcessDetails"][format!("numberOf{member}Things")];
            prop_assert_eq!(shown, &json!(expected), "{} {}", id, status);
            counted += expected;
        }
        prop_assert_eq!(counted, latest.len());
        let open = latest.values().any(|run| is_pending(run));
        prop_assert!(job["status"] != "COMPLETED" || !open, "{id} is COMPLETED and has pending executions");
    }
    Ok(())
}

/// From one state to the next.
fn check_change(before: &Seen, after: &Seen, step: &Step) -> Result<(), TestCaseError> {
    for (run, old) in &before.runs {
        let same_job =
            after.jobs.get(&run.0).is_some_and(|job| job["createdAt"] == before.jobs[&run.0]["createdAt"]);
        let Some(new) = after.runs.get(run).filter(|_| same_job) else { continue };
        let (from, to) = (old["versionNumber"].as_i64().unwrap(), new["versionNumber"].as_i64().unwrap());
        if is_pending(old) {
            let changed = old["status"] != new["status"];
            // A clock that jumps may have ended an execution; a call writes once.
            prop_assert!(to == from || to == from + 1, "{run:?}: {from} to {to} by {step:?}");
            prop_assert!(to > from || !changed, "{run:?} changed without a new version by {step:?}");
        } else if new["queuedAt"] == old["queuedAt"] {
            prop_assert_eq!(old, new, "{:?} had ended before {:?}", run, step);
        }
    }
    Ok(())
}

fn check_messages(
    before: &Seen,
    after: &Seen,
    messages: &[(String, Value)],
    step: &Step,
) -> Result<(), TestCaseError> {
    for thing in THINGS {
        let of = |kind: &str| {
            messages.iter().filter(|(topic, _)| *topic == format!("{thing}/jobs/{kind}")).collect::<Vec<_>>()
        };
        let (notify, next) = (of("notify"), of("notify-next"));
        // An execution number may be used again after a deletion: then the queue time tells them apart.
        let marked = |seen: &Seen| {
            let mark = |run: &(String, i64)| {
                let shown = &seen.runs[&(run.0.clone(), thing.to_owned(), run.1)];
                (run.clone(), shown["queuedAt"].clone(), seen.jobs[&run.0]["createdAt"].clone())
            };
            queue(seen, thing).iter().map(mark).map(|mark| format!("{mark:?}")).collect::<Vec<_>>()
        };
        let (old, new) = (marked(before), marked(after));
        let set_changed = old.iter().collect::<BTreeSet<_>>() != new.iter().collect::<BTreeSet<_>>();
        let head_changed =
            queue(before, thing).first() != queue(after, thing).first() || old.first() != new.first();
        if !matches!(step, Step::Wait(_)) {
            prop_assert_eq!(notify.len(), usize::from(set_changed), "notify to {} by {:?}", thing, step);
            prop_assert_eq!(next.len(), usize::from(head_changed), "notify-next to {} by {:?}", thing, step);
        }
        prop_assert!(!set_changed || !notify.is_empty(), "{thing} was not told by {step:?}");
        prop_assert!(!head_changed || !next.is_empty(), "{thing} was not told its head by {step:?}");
        if let Some((_, last)) = next.last() {
            let head =
                last.get("execution").map(|e| (text(&e["jobId"]), e["executionNumber"].as_i64().unwrap()));
            prop_assert_eq!(head, queue(after, thing).first().cloned());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_and_rows_are_enough(steps in steps()) {
        let mut cloud = Cloud::new();
        let mut rows: BTreeMap<(String, String), Value> = BTreeMap::new();
        for group in GROUPS {
            let parent = if group == "g1" { json!({"parentGroupName": "g0"}) } else { Value::Null };
            cloud.ok("CreateThingGroup", json!({"thingGroupName": group}), parent);
        }
        THINGS.iter().for_each(|thing| cloud.thing(thing));
        let mut before = look(&mut cloud);
        for step in steps {
            // Jobs that are made one after another have different times.
            cloud.now = cloud.now.plus_secs(1);
            cloud.engine.fire_due(cloud.now);
            let fired = cloud.drain();
            let ticked = look(&mut cloud);
            check_messages(&before, &ticked, &fired, &Step::Wait(1))?;
            before = ticked;

            for change in cloud.engine.take_changes() {
                let key = (change.kind.to_owned(), change.key);
                match change.value {
                    Some(value) => drop(rows.insert(key, value)),
                    None => drop(rows.remove(&key)),
                }
            }
            let saved = rows.iter().map(|((kind, key), value)| (kind.clone(), key.clone(), value.clone()));
            let engine = Engine::load(settings(), Arc::new(Bucket), saved).unwrap();
            let mut restored = Cloud { engine, now: cloud.now };

            let done = act(&mut cloud, &step);
            prop_assert_eq!(&done, &act(&mut restored, &step), "after loading: {:?}", step);
            let after = look(&mut cloud);
            prop_assert_eq!(&after, &look(&mut restored), "after loading: {:?}", step);

            check_state(&after)?;
            check_change(&before, &after, &step)?;
            check_messages(&before, &after, &done.1, &step)?;
            before = after;
        }
    }
}
