//! Why a request was refused: a code and one of the service's fixed texts.

use serde_json::Map;

use crate::engine::ApiError;

#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    pub code: u16,
    pub message: String,
    pub token: Option<String>,
}

impl Rejection {
    pub fn new(code: u16, message: impl Into<String>) -> Rejection {
        Rejection { code, message: message.into(), token: None }
    }

    /// With the token of the request, where it could be read.
    pub fn with(mut self, token: Option<String>) -> Rejection {
        self.token = token;
        self
    }
}

pub fn bad(message: impl Into<String>) -> Rejection {
    Rejection::new(400, message)
}

pub fn too_large() -> Rejection {
    Rejection::new(413, "The payload exceeds the maximum size allowed")
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> ApiError {
        let kind = match rejection.code {
            404 => "ResourceNotFoundException",
            409 => "ConflictException",
            413 => "RequestEntityTooLargeException",
            415 => "UnsupportedDocumentEncodingException",
            _ => "InvalidRequestException",
        };
        ApiError { http: rejection.code, kind, message: rejection.message, extra: Map::new() }
    }
}
