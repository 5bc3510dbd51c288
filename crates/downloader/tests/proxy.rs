//! The system's proxy is what its environment says, so the transfer runs in a process with such an environment.

mod support;

use std::process::Command;

use downloader::{Artifact, Downloader, Resume, Settings, SourceUrl, Staging};
use support::*;
use tokio_util::sync::CancellationToken;

const BODY: &[u8] = b"by way of the proxy";

#[tokio::test]
async fn system_proxies_are_honoured() {
    let proxy = Server::start(|_, request| object(request, BODY, "")).await;
    let mut transfer = Command::new(std::env::current_exe().unwrap());
    transfer
        .args(["--exact", "the_transfer_itself", "--ignored"])
        .env("http_proxy", format!("http://{}", proxy.address))
        .env_remove("no_proxy")
        .env_remove("NO_PROXY");
    let ended = tokio::task::spawn_blocking(move || transfer.output()).await.unwrap().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
    assert_eq!(proxy.requests()[0].target, "http://firmware.invalid/fw.bin");
}

#[tokio::test]
#[ignore = "run by the test above, with a proxy in the environment"]
async fn the_transfer_itself() {
    let folder = tempfile::tempdir().unwrap();
    let url = SourceUrl::parse("http://firmware.invalid/fw.bin", true).unwrap();
    let artifact = Artifact { url, digest: sha256(BODY), size: None };
    let mut staging = Staging::create(&folder.path().join("artifact"), artifact.digest, None).unwrap();
    Downloader::new(Settings { limits: limits(), allow_http: true, ..Settings::default() })
        .fetch(&artifact, &mut Resume::default(), &mut staging, &mut |_| {}, &CancellationToken::new())
        .await
        .unwrap();
    staging.finish().await.unwrap();
}
