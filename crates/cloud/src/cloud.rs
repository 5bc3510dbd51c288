//! The hub: every request comes in here, every message of the service goes out here.
//!
//! One lock is held from a request until its messages are on their way, so that the order in the log, on the wire
//! and in the store is one and the same.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use crate::broker::{self, Broker};
use crate::clock::Clock;
use crate::engine::{ApiError, ConnectionId, Engine, Output, Request, Time};
use crate::faults::{Fate, Fault, Faults, Kind};
use crate::identity::{Identity, Principal, ThingFiles};
use crate::messages::MessageLog;
use crate::shadow::{self, Shadows, Topic};
use crate::store::Store;
use crate::temporary::Temporary;

pub(crate) struct Cloud {
    pub(crate) clock: Arc<Clock>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) identity: Identity,
    engine: Mutex<Engine>,
    /// Locked while the engine is, and never without it.
    shadows: Mutex<Shadows>,
    broker: Broker,
    messages: Arc<Mutex<MessageLog>>,
    store: Option<Arc<Store>>,
    /// The next timer may have changed.
    timers: Notify,
}

/// Which side a call over HTTP comes from; it decides what being throttled looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plane {
    Control,
    Device,
    /// Shadows.
    Data,
}

impl Cloud {
    pub(crate) fn new(
        clock: Arc<Clock>,
        faults: Arc<Faults>,
        identity: Identity,
        engine: Engine,
        shadows: Shadows,
        broker: Broker,
        store: Option<Arc<Store>>,
    ) -> Cloud {
        let messages = Arc::default();
        let (engine, shadows, timers) = (Mutex::new(engine), Mutex::new(shadows), Notify::new());
        Cloud { clock, faults, identity, engine, shadows, broker, messages, store, timers }
    }

    /// A call of the AWS CLI or an SDK.
    pub(crate) fn call(&self, plane: Plane, request: &Request) -> Result<Value, ApiError> {
        let thing = request.params.get("thingName").map(String::as_str);
        if let Some(code) = self.faults.on_call(&request.op, thing) {
            return Err(refusal(plane, code));
        }
        self.with_engine(None, |engine, now| match plane {
            Plane::Device => engine.device_https(now, request),
            Plane::Control | Plane::Data => self.control(engine, now, request),
        })
    }

    /// A call of `iot-data`, whose body is a shadow's document and is judged by the service's own rules.
    pub(crate) fn shadow(
        &self,
        op: &str,
        params: &BTreeMap<String, String>,
        body: &[u8],
    ) -> Result<Value, ApiError> {
        let thing = params.get("thingName").map(String::as_str);
        if let Some(code) = self.faults.on_call(op, thing) {
            return Err(refusal(Plane::Data, code));
        }
        self.with_engine(None, |engine, now| {
            let known = thing.is_some_and(|thing| engine.has_thing(thing));
            let (answer, messages) = locked(&self.shadows).https(now, known, op, params, body)?;
            engine.say(messages);
            Ok(answer)
        })
    }

    /// Certificates and policies are the identity's, all else is the engine's; two operations concern both.
    fn control(&self, engine: &mut Engine, now: Time, request: &Request) -> Result<Value, ApiError> {
        let thing = request.params.get("thingName");
        match request.op.as_str() {
            "AttachThingPrincipal" => {
                let describe = Request {
                    op: "DescribeThing".to_owned(),
                    params: request.params.clone(),
                    body: Value::Null,
                };
                engine.control(now, &describe)?;
            }
            "DeleteThing" if thing.is_some_and(|thing| !self.identity.principals_of(thing).is_empty()) => {
                let message = "Cannot delete. Thing is still attached to one or more principals".to_owned();
                return Err(ApiError {
                    http: 400,
                    kind: "InvalidRequestException",
                    message,
                    extra: Map::new(),
                });
            }
            _ => {}
        }
        match self.identity.control(now.secs(), &request.op, &request.params, &request.body) {
            Some(result) => result,
            None => engine.control(now, request),
        }
    }

    /// A call of Cognito's identity pools; `now` is the machine's time.
    pub(crate) fn cognito(
        &self,
        operation: &str,
        body: &Value,
        temporary: &Temporary,
        now: Time,
    ) -> Result<Value, ApiError> {
        if let Some(code) = self.faults.on_call(operation, None) {
            return Err(refusal(Plane::Control, code));
        }
        self.with_engine(None, |_, _| self.identity.cognito(now, operation, body, temporary))
    }

    /// Serves MQTT on a stream that was opened elsewhere, for as long as it lasts, or for so many seconds.
    pub(crate) async fn mqtt(
        self: &Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        address: IpAddr,
        principal: Option<Principal>,
        seconds: Option<i64>,
    ) {
        let ends = seconds.map(|seconds| self.clock.now().plus_secs(seconds));
        let ends = ends.map(|at| u64::try_from(at.millis()).unwrap_or(0));
        self.broker.connection(stream, address, principal, ends, Arc::clone(self) as _).await;
    }

    /// A thing, new or not, with one more certificate: what an agent needs to be that thing.
    pub(crate) fn provision(&self, thing: &str) -> Result<ThingFiles, ApiError> {
        let params = [("thingName".to_owned(), thing.to_owned())].into();
        let create = Request { op: "CreateThing".to_owned(), params, body: Value::Null };
        self.with_engine(None, |engine, now| {
            match engine.control(now, &create) {
                Err(error) if error.kind != "ResourceAlreadyExistsException" => return Err(error),
                _ => {}
            }
            let created = self.identity.create_for_thing(now.secs(), thing);
            created.map_err(|error| {
                let message = format!("no certificate could be made: {error}");
                ApiError { http: 500, kind: "InternalFailureException", message, extra: Map::new() }
            })
        })
    }

    /// A device's request, over MQTT or, without a connection, as if it had come that way.
    pub(crate) fn device(
        &self,
        from: Option<(ConnectionId, &str)>,
        thing: &str,
        topic: &str,
        payload: &[u8],
    ) {
        if let Some(topic) = Topic::parse(topic) {
            return self.shadow_request(&topic, payload);
        }
        let client = from.map(|(_, client)| client);
        let to = from.map(|(connection, _)| connection);
        if let Some(code) = self.faults.on_request(thing, topic) {
            let (topic, payload) = (format!("{topic}/rejected"), rejection(&code, self.clock.now(), payload));
            self.send(client, Output::Answer { to, thing: thing.to_owned(), topic, payload });
            return;
        }
        self.with_engine(client, |engine, now| engine.device(now, thing, to, topic, payload));
    }

    fn shadow_request(&self, topic: &Topic<'_>, payload: &[u8]) {
        let refused = self.faults.on_request(topic.thing, &topic.to_string());
        self.with_engine(None, |engine, now| {
            let messages = match &refused {
                Some(code) => vec![shadow::refused_on_purpose(now, topic, code, payload)],
                None => locked(&self.shadows).device(now, engine.has_thing(topic.thing), topic, payload),
            };
            engine.say(messages);
        });
    }

    /// A message that concerns no reserved topic.
    pub(crate) fn route(&self, topic: &str, payload: Bytes) {
        self.broker.publish(topic, payload);
    }

    /// Moves the clock; every timer due by then has fired, in order, when this returns.
    pub(crate) fn move_clock(&self, target: impl FnOnce(Time) -> Time) -> Time {
        let engine = self.engine();
        // Under the lock, so that nobody is served between the old time and the new.
        self.clock.set(target(self.clock.now()));
        drop(engine);
        self.with_engine(None, |_, now| now)
    }

    /// Puts a fault in place, or carries it out if it is of the kind that happens at once.
    /// The id it has then; an error when there are too many.
    pub(crate) fn add_fault(&self, fault: Fault) -> Result<Option<u64>, String> {
        let thing = fault.thing.clone().unwrap_or_default();
        match fault.fault {
            Kind::Cut => drop(self.broker.cut(&thing)),
            Kind::Refuse => self.broker.refuse(&thing, if fault.count == 0 { u32::MAX } else { fault.count }),
            Kind::Clock => drop(self.move_clock(|now| now.plus_secs(fault.seconds.unwrap_or_default()))),
            _ => {
                let id = self.faults.add(fault);
                return id
                    .map(Some)
                    .ok_or_else(|| "too many faults are in place: clear some of them".to_owned());
            }
        }
        Ok(None)
    }

    /// Takes back one fault, or all of them; how many there were.
    pub(crate) fn clear_faults(&self, id: Option<u64>) -> usize {
        let refused = if id.is_none() { self.broker.refuse_nobody() } else { 0 };
        refused + self.faults.clear(id)
    }

    /// What AWS would bill each client for.
    pub(crate) fn metered(&self) -> Value {
        self.broker.metered()
    }

    pub(crate) fn messages_since(&self, after: u64) -> String {
        locked(&self.messages).since(after)
    }

    /// Fires timers as they come due, until the future is dropped.
    pub(crate) async fn run_timers(&self) {
        loop {
            let changed = self.timers.notified();
            let next = self.engine().next_timer();
            match next.and_then(|at| self.clock.until(at)) {
                Some(sleep) => {
                    let _ = tokio::time::timeout(sleep.max(Duration::from_millis(1)), changed).await;
                }
                None => changed.await,
            }
            self.with_engine(None, |_, _| ());
        }
    }

    /// Runs one call with the timers before it fired, and sees to its messages and rows.
    pub(crate) fn with_engine<T>(
        &self,
        client: Option<&str>,
        call: impl FnOnce(&mut Engine, Time) -> T,
    ) -> T {
        let mut engine = self.engine();
        let now = self.clock.now();
        engine.fire_due(now);
        let before = engine.next_timer();
        let result = call(&mut engine, now);
        engine.fire_due(now);
        if engine.next_timer() != before {
            self.timers.notify_one();
        }
        for deployed in engine.take_deployed() {
            let messages = locked(&self.shadows).deployed(now, &deployed);
            engine.say(messages);
        }
        // First kept, then said.
        self.keep(&mut engine);
        for output in engine.take_outputs() {
            self.send(client, output);
        }
        result
    }

    fn keep(&self, engine: &mut Engine) {
        let Some(store) = &self.store else { return };
        let shadows = locked(&self.shadows).take_changes();
        let changes = engine.take_changes().into_iter().chain(self.identity.take_changes()).chain(shadows);
        let changes = changes.map(|change| (change.kind.to_owned(), change.key, change.value));
        if let Err(error) = store.write(changes) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "this call will be forgotten at the next start"
            );
        }
    }

    /// One message of the service on its way, unless a fault has other plans.
    pub(crate) fn send(&self, client: Option<&str>, output: Output) {
        let (to, is_answer, topic, payload) = match output {
            Output::Answer { to, topic, payload, .. } => (to, true, topic, payload),
            Output::Publish { topic, payload } => (None, false, topic, payload),
        };
        let payload = Bytes::from(payload.to_string());
        let client = client.filter(|_| is_answer).map(str::to_owned);
        let delivery = Delivery {
            broker: self.broker.clone(),
            log: self.messages.clone(),
            to,
            is_answer,
            topic,
            payload,
            client,
        };
        // A shadow's answers are ordinary messages, and answers all the same to who orders a fault.
        let answers = is_answer || ["/accepted", "/rejected"].iter().any(|end| delivery.topic.ends_with(end));
        match self.faults.on_message(thing_of(&delivery.topic), &delivery.topic, answers) {
            Fate::Deliver => delivery.deliver(),
            Fate::Drop => {}
            Fate::Duplicate => {
                delivery.deliver();
                delivery.deliver();
            }
            Fate::Delay(time) => drop(tokio::spawn(async move {
                tokio::time::sleep(time).await;
                delivery.deliver();
            })),
        }
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        locked(&self.engine)
    }
}

impl broker::Service for Cloud {
    fn published(
        &self,
        from: ConnectionId,
        client_id: &str,
        _thing: Option<&str>,
        topic: &str,
        payload: &[u8],
    ) {
        // The policy has been asked already: on an ordinary client's own topics the two things are one.
        if let Some(thing) = thing_of(topic) {
            self.device(Some((from, client_id)), thing, topic, payload);
        } else {
            self.provisioning(Some(from), client_id, topic, payload);
        }
    }
}

struct Delivery {
    broker: Broker,
    log: Arc<Mutex<MessageLog>>,
    to: Option<ConnectionId>,
    is_answer: bool,
    topic: String,
    payload: Bytes,
    client: Option<String>,
}

impl Delivery {
    fn deliver(&self) {
        locked(&self.log).push(&self.topic, self.payload.clone(), self.client.as_deref());
        match self.to {
            Some(connection) => self.broker.send(connection, &self.topic, self.payload.clone()),
            None if self.is_answer => {} // asked through the administration: the log is the only reader
            None => self.broker.publish(&self.topic, self.payload.clone()),
        }
    }
}

/// The thing whose topic this is.
pub(crate) fn thing_of(topic: &str) -> Option<&str> {
    topic.strip_prefix("$aws/things/")?.split('/').next()
}

/// The payload of an answer that refuses a request which was never looked at.
fn rejection(code: &str, now: Time, request: &[u8]) -> Value {
    let mut answer = json!({"code": code, "message": "Refused on purpose", "timestamp": now.secs()});
    let request: Value = serde_json::from_slice(request).unwrap_or_default();
    if let (Some(token), Some(answer)) = (request.get("clientToken"), answer.as_object_mut()) {
        answer.insert("clientToken".to_owned(), token.clone());
    }
    answer
}

/// The error of a call that was refused on purpose; no code means its rate.
fn refusal(plane: Plane, code: Option<String>) -> ApiError {
    let throttled = if plane == Plane::Control { 400 } else { 429 };
    let (http, kind) = match code.as_deref() {
        None | Some("ThrottlingException") => (throttled, "ThrottlingException"),
        Some("UnauthorizedException") => (401, "UnauthorizedException"),
        Some("LimitExceededException") => (410, "LimitExceededException"),
        Some("ResourceNotFoundException") => (404, "ResourceNotFoundException"),
        Some("ConflictException") => (409, "ConflictException"),
        Some("ServiceUnavailableException") => (503, "ServiceUnavailableException"),
        Some("InvalidRequestException") => (400, "InvalidRequestException"),
        Some(_) => (500, "InternalFailureException"),
    };
    ApiError { http, kind, message: "Refused on purpose".to_owned(), extra: Map::new() }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
