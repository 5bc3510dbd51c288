//! The commands that speak to a running cloud.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use url::Url;

use crate::cli::{FaultCommand, Thing};
use crate::identity::{ThingFiles, check_vacant, write_files};

/// What a command has to say to the person who gave it.
pub(crate) async fn thing(command: Thing) -> anyhow::Result<String> {
    let Thing::Create { name, out, api } = command;
    check_vacant(&out)?;
    let created = call(&api.url, Method::POST, "/_cloud/things", Some(json!({"thing": name}))).await?;
    let port = created.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
    let port = port.context("the cloud's answer has no port")?;
    let files: ThingFiles =
        serde_json::from_value(created).context("the cloud's answer is not understood")?;
    let config = write_files(&out, &name, "localhost", port, &files)?;
    Ok(config.display().to_string())
}

pub(crate) async fn fault(command: FaultCommand) -> anyhow::Result<String> {
    let answer = match command {
        FaultCommand::Add { fault, api } => {
            fault.check().map_err(anyhow::Error::msg)?;
            let order = serde_json::to_value(&fault)?;
            call(&api.url, Method::POST, "/_cloud/faults", Some(order)).await?
        }
        FaultCommand::List { api } => call(&api.url, Method::GET, "/_cloud/faults", None).await?,
        FaultCommand::Clear { id, api } => {
            let path = id.map_or("/_cloud/faults".to_owned(), |id| format!("/_cloud/faults/{id}"));
            call(&api.url, Method::DELETE, &path, None).await?
        }
    };
    Ok(answer.to_string())
}

/// One request to the cloud, which is on this machine or near it: plain HTTP, one connection, no proxy.
async fn call(api: &Url, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
    if api.scheme() != "http" {
        bail!("--api {api}: expected http://ADDRESS:PORT");
    }
    let host = api.host_str().with_context(|| format!("--api {api} has no host"))?;
    let authority = format!("{host}:{}", api.port_or_known_default().unwrap_or(80));
    let stream = tokio::net::TcpStream::connect(&authority).await;
    let stream = stream
        .with_context(|| format!("no cloud answers at {authority}; is `fleethand-cloud serve` running?"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, authority)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let answer: Value = serde_json::from_slice(&body).context("the answer is not the cloud's")?;
    if !status.is_success() {
        bail!("{}", answer.get("message").and_then(Value::as_str).unwrap_or("the cloud refused"));
    }
    Ok(answer)
}
