//! The device's identity: which certificate and key it connects with, how it gets its first ones by claim, and how it
//! gets others without ever being left with none. `docs/certificates.md` tells the whole of it.

mod error;
mod key;
mod obtain;
mod parameters;
mod prove;
mod provision;
mod rotation;
mod service;
mod store;

pub use error::Error;
pub use obtain::{Order, obtain};
pub use parameters::{Parameter, evaluate};
pub use provision::{provision, try_to_provision};
pub use rotation::{Loan, Rotation};
pub use store::{Generation, Store};
