//! The tools agents call, wherever they run.
//!
//! - [`read`]: HaloPSA's read tools; [`write`]: its write tools, parsed and bounded
//!   (pure); [`send`]: sends a write to HaloPSA
//! - [`server`]: the client of other MCP servers; [`pin`]: keeps their tools as accepted (pure)

pub mod pin;
pub mod read;
pub mod send;
pub mod server;
pub mod write;
