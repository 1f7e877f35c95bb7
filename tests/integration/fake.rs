//! Fake third-party servers for tests, over TLS with their own CA.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use axum::{Json, Router};
use axum_server::tls_rustls::RustlsConfig;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// A server at `https://localhost:PORT`, until the test ends.
pub struct Fake {
    pub url: String,
    pub ca: String,
}

pub async fn serve(router: Router) -> Fake {
    let tls = halosim::tls::issue(&[], None).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let config = RustlsConfig::from_config(tls.server);
    tokio::spawn(
        axum_server::from_tcp_rustls(listener, config)
            .unwrap()
            .serve(router.into_make_service()),
    );
    Fake {
        url,
        ca: tls.ca_pem,
    }
}

/// Returns the response to the n-th request, from 0: a status and a body.
pub type Script = Box<dyn Fn(usize, &Value) -> (u16, Value) + Send + Sync>;

/// An OpenAI-compatible endpoint that answers from a script.
#[derive(Clone)]
pub struct Model {
    script: Arc<Mutex<(usize, Script)>>,
    /// Every request: its Authorization header and its body.
    pub requests: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Model {
    pub async fn start(script: Script) -> (Self, Fake) {
        let model = Self {
            script: Arc::new(Mutex::new((0, script))),
            requests: Arc::default(),
        };
        let router = Router::new()
            .route("/v1/chat/completions", post(answer))
            .with_state(model.clone());
        (model, serve(router).await)
    }

    /// Starts another script from its beginning.
    pub fn play(&self, script: Script) {
        *self.script.lock().unwrap() = (0, script);
    }

    pub fn asked(&self) -> usize {
        self.script.lock().unwrap().0
    }
}

async fn answer(
    State(model): State<Model>,
    headers: HeaderMap,
    Json(request): Json<Value>,
) -> axum::response::Response {
    let key = headers
        .get("authorization")
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
        .to_string();
    model.requests.lock().unwrap().push((key, request.clone()));
    let mut script = model.script.lock().unwrap();
    let n = script.0;
    script.0 += 1;
    let (status, body) = (script.1)(n, &request);
    match body.as_str() {
        // A stream, or nonsense, sent verbatim.
        Some(text) => ([("content-type", "text/event-stream")], text.to_string()).into_response(),
        None => (StatusCode::from_u16(status).unwrap(), Json(body)).into_response(),
    }
}

/// A response that calls these tools.
pub fn calls(calls: &[(&str, Value)]) -> (u16, Value) {
    let calls: Vec<Value> = calls
        .iter()
        .enumerate()
        .map(|(i, (name, arguments))| json!({"id": format!("call-{i}"), "type": "function", "function": {"name": name, "arguments": arguments.to_string()}}))
        .collect();
    let message = json!({"role": "assistant", "content": null, "tool_calls": calls});
    (
        200,
        json!({"choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": {"total_tokens": 100}}),
    )
}

pub fn words(text: &str) -> (u16, Value) {
    (
        200,
        json!({"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}], "usage": {"total_tokens": 50}}),
    )
}

pub fn plan() -> Value {
    json!({"asked": "The model says what is asked", "findings": ["found by the model"], "steps": ["planned by the model"], "confidence": "High"})
}

/// An MCP server with tools that can be changed.
#[derive(Clone, Default)]
pub struct Tools {
    pub tools: Arc<Mutex<Vec<(String, String)>>>,
    /// Every call: tool and arguments.
    pub called: Arc<Mutex<Vec<(String, Value)>>>,
    pub keys: Arc<Mutex<Vec<String>>>,
    /// The signed contexts of all requests, and the plain ones of calls.
    pub contexts: Arc<Mutex<Vec<String>>>,
    pub metas: Arc<Mutex<Vec<Value>>>,
}

impl Tools {
    pub async fn start(tools: &[(&str, &str)]) -> (Self, Fake) {
        let server = Self::default();
        server.offer(tools);
        let service = server.clone();
        let config = StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_json_response(true)
            .disable_allowed_hosts();
        let mcp = StreamableHttpService::new(
            move || Ok(service.clone()),
            Arc::new(NeverSessionManager::default()),
            config,
        );
        let (keys, contexts) = (server.keys.clone(), server.contexts.clone());
        let seen = move |headers: HeaderMap,
                         request: axum::extract::Request,
                         next: axum::middleware::Next| {
            let key = headers
                .get("x-api-key")
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default()
                .to_string();
            keys.lock().unwrap().push(key);
            if let Some(context) = headers.get("x-rallied-context") {
                let context = context.to_str().unwrap().to_string();
                contexts.lock().unwrap().push(context);
            }
            next.run(request)
        };
        let router = Router::new()
            .nest_service("/mcp", mcp)
            .layer(axum::middleware::from_fn(seen));
        (server, serve(router).await)
    }

    /// Sets the tools offered from now on: names and descriptions.
    pub fn offer(&self, tools: &[(&str, &str)]) {
        *self.tools.lock().unwrap() = tools
            .iter()
            .map(|(n, d)| (n.to_string(), d.to_string()))
            .collect();
    }
}

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let schema = json!({"type": "object", "properties": {"user": {"type": "string"}}})
            .as_object()
            .cloned()
            .unwrap();
        let tools = self.tools.lock().unwrap().clone();
        let tool = |(name, description): (String, String)| {
            Tool::new(name, description, Arc::new(schema.clone()))
        };
        Ok(ListToolsResult::with_all_items(
            tools.into_iter().map(tool).collect(),
        ))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        // Wherever rmcp leaves it.
        let metas = [
            serde_json::to_value(&request.meta).unwrap(),
            serde_json::to_value(&context.meta).unwrap(),
        ];
        let meta = metas.iter().find_map(|m| m.get("rallied.ai/context"));
        self.metas.lock().unwrap().extend(meta.cloned());
        let arguments = Value::Object(request.arguments.unwrap_or_default());
        self.called
            .lock()
            .unwrap()
            .push((request.name.to_string(), arguments.clone()));
        if arguments["user"] == "fails" {
            let text = ContentBlock::text("it did not work");
            return Ok(CallToolResult::error(vec![text]).into());
        }
        Ok(CallToolResult::structured(json!({"done": request.name, "with": arguments})).into())
    }
}
