//! Listeners: TLS with a certificate that may change while serving, and plain HTTP
//! for health and metrics. Each is bounded in connections, time and memory.

use crate::metrics::{self, Metrics};
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum_server::accept::Accept;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use axum_server::{Handle, Server};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::{ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// How long requests in flight may take to finish on shutdown.
const GRACE: Duration = Duration::from_secs(10);

/// A server's TLS configuration from PEM.
pub fn tls_config(
    certificate: &[u8],
    key: &[u8],
) -> Result<Arc<rustls::ServerConfig>, Box<dyn std::error::Error + Send + Sync>> {
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key)?;
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// What strangers may take of a listener. More connections are closed at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections: usize,
    /// A connection from which nothing is read for this long is closed.
    pub idle: Duration,
    /// A TLS handshake, the first bytes and a request's headers each take this long at most.
    pub headers: Duration,
    /// Concurrent requests on one HTTP/2 connection.
    pub streams: u32,
    /// Bytes of HTTP/2 bodies that one connection may send before they are read.
    pub window: u32,
}

impl Limits {
    /// For everybody on the Internet.
    pub const PUBLIC: Limits = Limits {
        connections: 512,
        idle: Duration::from_secs(60),
        headers: Duration::from_secs(10),
        streams: 32,
        window: 32 * BUFFER,
    };
    /// For agents, whose calls may take minutes.
    pub const AGENTS: Limits = Limits {
        connections: 2048,
        idle: Duration::from_secs(900),
        headers: Duration::from_secs(10),
        streams: 64,
        window: 8 * BUFFER,
    };
    /// For kubelet and Prometheus.
    pub const HEALTH: Limits = Limits {
        connections: 64,
        idle: Duration::from_secs(60),
        headers: Duration::from_secs(10),
        streams: 8,
        window: BUFFER,
    };
}

/// Bytes kept of one request: of HTTP/1 headers, or of an HTTP/2 body that nobody has read yet.
const BUFFER: u32 = 64 * 1024;
const MAX_HEADERS: u32 = 16 * 1024;

/// Serves with TLS until `stop`.
pub async fn serve_tls(
    address: SocketAddr,
    limits: Limits,
    tls: RustlsConfig,
    app: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let acceptor = RustlsAcceptor::new(tls)
        .handshake_timeout(limits.headers)
        .acceptor(Slots::new(limits));
    let server = limited(axum_server::bind(address), limits, stop);
    server
        .acceptor(acceptor)
        .serve(app.into_make_service())
        .await
}

/// Serves without TLS until `stop`.
pub async fn serve(
    address: SocketAddr,
    limits: Limits,
    app: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let server = limited(axum_server::bind(address), limits, stop);
    server
        .acceptor(Slots::new(limits))
        .serve(app.into_make_service())
        .await
}

/// A server that gives no client more time or memory than this.
fn limited(
    mut server: Server<SocketAddr>,
    limits: Limits,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Server<SocketAddr> {
    let handle = Handle::new();
    shut_down_on(stop, handle.clone());
    let builder = server.http_builder();
    builder
        .http1()
        .header_read_timeout(limits.headers)
        .max_buf_size(BUFFER as usize);
    builder
        .http2()
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(BUFFER)
        .initial_connection_window_size(limits.window)
        .max_header_list_size(MAX_HEADERS);
    server.first_request_timeout(limits.headers).handle(handle)
}

/// Counts connections, and closes those that find no slot.
#[derive(Clone)]
struct Slots {
    free: Arc<Semaphore>,
    idle: Duration,
}

impl Slots {
    fn new(limits: Limits) -> Self {
        Self {
            free: Arc::new(Semaphore::new(limits.connections)),
            idle: limits.idle,
        }
    }
}

impl<S> Accept<TcpStream, S> for Slots {
    type Stream = Slot;
    type Service = S;
    type Future = std::future::Ready<std::io::Result<(Slot, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let slot = self.free.clone().try_acquire_owned();
        std::future::ready(match slot {
            Ok(permit) => Ok((Slot::new(stream, self.idle, permit), service)),
            Err(_) => Err(ErrorKind::ConnectionRefused.into()),
        })
    }
}

/// A connection that holds its slot, and ends when its client is silent.
struct Slot {
    stream: TcpStream,
    idle: Duration,
    silent: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Slot {
    fn new(stream: TcpStream, idle: Duration, permit: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            idle,
            silent: Box::pin(tokio::time::sleep(idle)),
            _permit: permit,
        }
    }
}

impl AsyncRead for Slot {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = &mut *self;
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if read.is_ready() {
            this.silent.as_mut().reset(Instant::now() + this.idle);
            return read;
        }
        match this.silent.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for Slot {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

fn shut_down_on(stop: impl Future<Output = ()> + Send + 'static, handle: Handle<SocketAddr>) {
    tokio::spawn(async move {
        stop.await;
        handle.graceful_shutdown(Some(GRACE));
    });
}

/// Whether a process is ready to serve.
#[derive(Clone, Debug, Default)]
pub struct Ready(Arc<AtomicBool>);

impl Ready {
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long nothing else may run before the process counts as stuck.
const STUCK: Duration = Duration::from_secs(120);

/// Shows that the threads everything else runs on are not all busy for good.
#[derive(Clone, Debug)]
struct Pulse(Arc<Mutex<Instant>>);

impl Pulse {
    fn start() -> Self {
        let pulse = Self(Arc::new(Mutex::new(Instant::now())));
        let beats = pulse.clone();
        tokio::spawn(async move {
            loop {
                *beats.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        pulse
    }

    fn is_stuck(&self) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.elapsed() > STUCK
    }
}

/// Serves health and metrics until `stop`, on a thread of its own: they answer as well while every
/// other thread is busy, and the kubelet does not end a process that is merely slow.
pub fn serve_health(
    address: SocketAddr,
    ready: Ready,
    metrics: Arc<Metrics>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (stopped, stops) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        stop.await;
        let _ = stopped.send(());
    });
    let pulse = Pulse::start();
    let app = routes(move || !pulse.is_stuck(), ready, metrics);
    let stop = async move {
        // An error is the end of the process, too.
        let _ = stops.await;
    };
    let thread = move || {
        let served = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .and_then(|runtime| runtime.block_on(serve(address, Limits::HEALTH, app, stop)));
        if let Err(error) = served {
            tracing::error!(%address, %error,
                "health and metrics are not served; free the address or choose another one");
        }
    };
    std::thread::Builder::new()
        .name("health".into())
        .spawn(thread)
        .map(drop)
}

/// `/healthz`, `/readyz`, `/metrics`.
pub fn health(ready: Ready, metrics: Arc<Metrics>) -> Router {
    routes(|| true, ready, metrics)
}

fn routes(
    alive: impl Fn() -> bool + Clone + Send + Sync + 'static,
    ready: Ready,
    metrics: Arc<Metrics>,
) -> Router {
    Router::new()
        .route(
            "/healthz",
            get(move || async move {
                if alive() {
                    (StatusCode::OK, "ok\n")
                } else {
                    (StatusCode::SERVICE_UNAVAILABLE, "stuck\n")
                }
            }),
        )
        .route(
            "/readyz",
            get(move || async move {
                if ready.is_ready() {
                    (StatusCode::OK, "ok\n")
                } else {
                    (StatusCode::SERVICE_UNAVAILABLE, "starting\n")
                }
            }),
        )
        .route(
            "/metrics",
            get(move || async move {
                (
                    [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)],
                    metrics.text(),
                )
                    .into_response()
            }),
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const QUICK: Limits = Limits {
        connections: 2,
        headers: Duration::from_millis(500),
        ..Limits::PUBLIC
    };
    const SOON: Duration = Duration::from_secs(5);

    /// A listener with these limits, until the test ends.
    async fn served(limits: Limits) -> SocketAddr {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let app = Router::new().route("/", get(|| async { "hello" }));
        tokio::spawn(serve(address, limits, app, std::future::pending()));
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        address
    }

    /// Whether the other side closes the connection soon.
    async fn is_closed(connection: &mut TcpStream) -> bool {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(SOON, connection.read_to_end(&mut rest)).await;
        read.is_ok() && !String::from_utf8_lossy(&rest).contains("hello")
    }

    async fn is_answered(address: SocketAddr) -> bool {
        let mut connection = TcpStream::connect(address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let mut answer = Vec::new();
        connection.write_all(request).await.is_ok()
            && connection.read_to_end(&mut answer).await.is_ok()
            && String::from_utf8_lossy(&answer).contains("hello")
    }

    #[tokio::test]
    async fn silent_connections_take_no_slot_for_long() {
        let address = served(QUICK).await;
        while !is_answered(address).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut silent = Vec::new();
        for _ in 0..2 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut third = TcpStream::connect(address).await.unwrap();
        let at = Instant::now();
        assert!(is_closed(&mut third).await);
        assert!(at.elapsed() < QUICK.headers, "at once");
        for connection in &mut silent {
            assert!(is_closed(connection).await);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(is_answered(address).await, "both slots are free again");
    }

    #[tokio::test]
    async fn headers_that_come_byte_by_byte_are_not_waited_for() {
        let address = served(QUICK).await;
        while !is_answered(address).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (mut reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
        tokio::spawn(async move {
            let _ = writer.write_all(b"GET / HTTP/1.1\r\nx: ").await;
            while writer.write_all(b"a").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(SOON, reader.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "closed after the time for headers");
    }

    #[tokio::test]
    async fn a_connection_that_went_silent_is_closed() {
        let limits = Limits {
            idle: Duration::from_millis(300),
            headers: Duration::from_secs(60),
            ..QUICK
        };
        let address = served(limits).await;
        let mut connection = TcpStream::connect(address).await.unwrap();
        assert!(is_closed(&mut connection).await);
    }

    #[test]
    fn health_is_answered_while_every_worker_is_busy() {
        use std::io::{Read, Write};
        let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        runtime.block_on(async {
            let stop = std::future::pending::<()>();
            serve_health(address, Ready::default(), Arc::default(), stop).unwrap();
        });
        runtime.spawn(async move { wait.recv() });
        let mut answer = String::new();
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(50));
            let Ok(mut stream) = std::net::TcpStream::connect(address) else {
                continue;
            };
            let limit = Some(Duration::from_secs(2));
            stream.set_read_timeout(limit).unwrap();
            stream
                .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                .unwrap();
            let _ = stream.read_to_string(&mut answer);
            break;
        }
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        go.send(()).unwrap();
    }
}
