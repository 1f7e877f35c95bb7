//! The tools agents call, wherever they run.
//!
//! - [`read`]: HaloPSA's read tools; [`write`](mod@write): its write tools, parsed, bounded and
//!   resolved (pure); [`rows`]: the rows they name; [`send`]: sends a write to HaloPSA
//! - [`server`]: the client of other MCP servers; [`pin`]: keeps their tools as accepted (pure)
//! - of their tools, all pure: [`effect`]: which are sensitive; [`schema`]: do the arguments fit;
//!   [`context`]: for whom one is called

pub mod context;
pub mod effect;
pub mod pin;
pub mod read;
pub mod rows;
pub mod schema;
pub mod send;
pub mod server;
pub mod write;
