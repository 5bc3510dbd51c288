//! The object store: S3 as far as firmware, documents and uploads need it, over `s3s`.
//!
//! Requests with an `Authorization` header are checked by `s3s`. Presigned URLs are checked here, because their expiry
//! is measured by the cloud's clock, which a test may move.

mod damage;
mod index;
mod listing;
mod multipart;
mod ops;
mod presign;
mod read;
mod storage;

use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpResponse, S3Result, s3_error};
use tokio::net::TcpListener;

use crate::faults::{Faults, Kind};
use crate::http::sigv4::Credentials;

pub(crate) use presign::Presigner;
pub(crate) use storage::Storage;

pub(crate) struct ObjectStore {
    storage: Arc<Storage>,
    credentials: Credentials,
    faults: Arc<Faults>,
    service: S3Service,
}

/// In a request's extensions: its presigned URL has been checked.
#[derive(Clone)]
struct Verified;

struct SignedOnly;

#[async_trait::async_trait]
impl S3Access for SignedOnly {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        if context.credentials().is_some() || context.extensions_mut().get::<Verified>().is_some() {
            return Ok(());
        }
        Err(s3_error!(AccessDenied, "Access Denied"))
    }
}

impl ObjectStore {
    pub(crate) fn new(storage: Arc<Storage>, credentials: Credentials, faults: Arc<Faults>) -> ObjectStore {
        let mut builder = S3ServiceBuilder::new(ops::Operations(storage.clone()));
        builder.set_auth(SimpleAuth::from_single(
            credentials.access_key.as_str(),
            credentials.secret_key.as_str(),
        ));
        builder.set_access(SignedOnly);
        ObjectStore { storage, credentials, faults, service: builder.build() }
    }

    /// Accepts connections until the future is dropped.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "no connection to the object store could be accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let store = self.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| store.handle(request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to the object store ended early");
                }
            });
        }
    }

    async fn handle(&self, request: Request<Incoming>) -> Result<HttpResponse, Infallible> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let fault = (method == Method::GET).then(|| object_of(&path)).flatten();
        let fault = fault.and_then(|(bucket, key)| self.faults.on_download(&bucket, &key));
        let mut response = match fault {
            Some(fault) if fault.fault == Kind::ObjectExpired => {
                refuse(StatusCode::FORBIDDEN, &presign::EXPIRED)
            }
            Some(fault) if fault.fault == Kind::ObjectStatus => {
                let status = StatusCode::from_u16(fault.status.unwrap_or(500))
                    .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let code = if status.is_server_error() { "InternalError" } else { "AccessDenied" };
                refuse(status, &presign::Refusal { code, message: "Refused on purpose" })
            }
            Some(fault) => damage::apply(&fault, self.answer(request).await),
            None => self.answer(request).await,
        };
        if let Ok(id) = HeaderValue::from_str(&format!("{:016X}", fastrand::u64(..))) {
            response.headers_mut().insert(HeaderName::from_static("x-amz-request-id"), id);
        }
        if method == Method::HEAD || response.status() == StatusCode::NOT_MODIFIED {
            *response.body_mut() = Body::empty();
        }
        // Without its query: that is where signatures are.
        tracing::debug!(%method, path, status = response.status().as_u16(), "object store answered");
        Ok(response)
    }

    async fn answer(&self, request: Request<Incoming>) -> HttpResponse {
        let mut request = request.map(Body::from);
        let query = request.uri().query().unwrap_or_default();
        if presign::is_presigned(query) {
            let presigned = presign::Presigned {
                method: request.method().as_str(),
                path: request.uri().path(),
                query,
                headers: request.headers(),
            };
            let clock = &self.storage.clock;
            match presigned.verify(&self.credentials, clock.now(), clock.is_manual()) {
                Ok(rest) => {
                    let separator = if rest.is_empty() { "" } else { "?" };
                    let target = format!("{}{separator}{rest}", request.uri().path());
                    if let Ok(uri) = target.parse::<Uri>() {
                        *request.uri_mut() = uri;
                        request.extensions_mut().insert(Verified);
                    }
                }
                Err(refusal) => {
                    let malformed = refusal.code == "AuthorizationQueryParametersError";
                    return refuse(
                        if malformed { StatusCode::BAD_REQUEST } else { StatusCode::FORBIDDEN },
                        &refusal,
                    );
                }
            }
        }
        self.service.call(request).await.unwrap_or_else(|_| {
            refuse(
                StatusCode::INTERNAL_SERVER_ERROR,
                &presign::Refusal { code: "InternalError", message: "Internal error" },
            )
        })
    }
}

fn object_of(path: &str) -> Option<(String, String)> {
    let path = percent_encoding::percent_decode_str(path).decode_utf8().ok()?;
    let (bucket, key) = path.strip_prefix('/')?.split_once('/')?;
    (!key.is_empty()).then(|| (bucket.to_owned(), key.to_owned()))
}

/// An error in S3's XML. Its texts are ours and have nothing to escape.
fn refuse(status: StatusCode, presign::Refusal { code, message }: &presign::Refusal) -> HttpResponse {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    let mut response = HttpResponse::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    response
}
