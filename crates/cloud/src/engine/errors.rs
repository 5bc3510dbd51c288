//! The two error vocabularies: rest-json exceptions, and the rejections of the device plane.

use serde_json::{Map, Value};

use super::interface::ApiError;
use super::names::{Named, named};

/// A member of a request that breaks a rule, in AWS's words. Which error it becomes is the plane's business.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation(pub String);

impl ApiError {
    fn new(http: u16, kind: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { http, kind, message: message.into(), extra: Map::new() }
    }

    fn with(mut self, member: &str, value: impl Into<Value>) -> ApiError {
        self.extra.insert(member.to_owned(), value.into());
        self
    }

    pub fn invalid_request(message: impl Into<String>) -> ApiError {
        ApiError::new(400, "InvalidRequestException", message)
    }

    pub fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(404, "ResourceNotFoundException", message)
    }

    pub fn already_exists(message: impl Into<String>, id: &str, arn: &str) -> ApiError {
        ApiError::new(409, "ResourceAlreadyExistsException", message)
            .with("resourceId", id)
            .with("resourceArn", arn)
    }

    pub fn conflict(message: impl Into<String>, id: &str) -> ApiError {
        ApiError::new(409, "ConflictException", message).with("resourceId", id)
    }

    pub fn invalid_transition(message: impl Into<String>) -> ApiError {
        ApiError::new(409, "InvalidStateTransitionException", message)
    }

    pub fn version_conflict(message: impl Into<String>) -> ApiError {
        ApiError::new(409, "VersionConflictException", message)
    }

    pub fn limit_exceeded(message: impl Into<String>) -> ApiError {
        ApiError::new(410, "LimitExceededException", message)
    }

    fn terminal_state(message: impl Into<String>) -> ApiError {
        ApiError::new(410, "TerminalStateException", message)
    }
}

impl From<Violation> for ApiError {
    fn from(Violation(message): Violation) -> ApiError {
        ApiError::invalid_request(format!("1 validation error detected: {message}"))
    }
}

named!(
    /// `code` of a rejected message. RequestThrottled and InternalError come from fault injection alone.
    Code {
        InvalidTopic = "InvalidTopic",
        InvalidJson = "InvalidJson",
        InvalidRequest = "InvalidRequest",
        InvalidStateTransition = "InvalidStateTransition",
        ResourceNotFound = "ResourceNotFound",
        VersionMismatch = "VersionMismatch",
        TerminalStateReached = "TerminalStateReached",
    }
);

/// Why a device's request was refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    pub code: Code,
    pub message: String,
    /// Goes with VersionMismatch and InvalidStateTransition.
    pub execution_state: Option<Value>,
}

impl Rejection {
    pub fn new(code: Code, message: impl Into<String>) -> Rejection {
        Rejection { code, message: message.into(), execution_state: None }
    }

    /// The members of the rejected message, but for `timestamp` and `clientToken`.
    pub fn members(self) -> Map<String, Value> {
        let mut members = Map::new();
        members.insert("code".to_owned(), self.code.name().into());
        members.insert("message".to_owned(), self.message.into());
        if let Some(state) = self.execution_state {
            members.insert("executionState".to_owned(), state);
        }
        members
    }
}

impl From<Violation> for Rejection {
    fn from(Violation(message): Violation) -> Rejection {
        Rejection::new(Code::InvalidRequest, message)
    }
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> ApiError {
        let message = rejection.message;
        match rejection.code {
            Code::InvalidTopic | Code::InvalidJson | Code::InvalidRequest => {
                ApiError::invalid_request(message)
            }
            Code::ResourceNotFound => ApiError::not_found(message),
            Code::InvalidStateTransition | Code::VersionMismatch => ApiError::invalid_transition(message),
            Code::TerminalStateReached => ApiError::terminal_state(message),
        }
    }
}
