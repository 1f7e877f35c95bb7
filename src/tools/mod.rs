//! The tools agents call, wherever they run.
//!
//! - [`read`]: HaloPSA's tools that read; [`write`]: those that write, parsed and
//!   bounded (pure); [`send`]: a write carried out
//! - [`server`]: other MCP servers; [`pin`]: what keeps their tools as accepted (pure)

pub mod pin;
pub mod read;
pub mod send;
pub mod server;
pub mod write;
