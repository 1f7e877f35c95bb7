//! `halosim`: HaloPSA without HaloPSA.
//!
//! Without a subcommand it serves; with one it calls the admin API of a simulator
//! on the same host.

use clap::{Parser, Subcommand};
use halosim::{Options, Sim, seed};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

const ADMIN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9090);

#[derive(Parser)]
#[command(version, about = "A faithful simulator of the HaloPSA REST API")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Address of the API, with TLS.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Address of the admin API, without TLS: keep it on loopback. Default: port 9090, or any
    /// free port if that is taken.
    #[arg(long, global = true)]
    admin: Option<SocketAddr>,
    /// demo, or scale[:CLIENTS[:USERS[:TICKETS]]].
    #[arg(long, default_value = "demo")]
    seed: seed::Seed,
    /// A host name for the certificate; may be repeated.
    #[arg(long = "name")]
    names: Vec<String>,
    /// Requests allowed per rolling five minutes.
    #[arg(long, default_value_t = 300)]
    rate_limit: usize,
    /// Delay from a change to its webhook, in milliseconds.
    #[arg(long, default_value_t = 20)]
    webhook_delay_ms: u64,
    /// File that keeps the state across restarts; in memory if not set.
    #[arg(long)]
    data: Option<PathBuf>,
    /// The tenant's name; any other in ?tenant= is refused.
    #[arg(long)]
    tenant: Option<String>,
    /// Faults from the start, in the format of `post faults`.
    #[arg(long, value_parser = json::<halosim::Faults>)]
    faults: Option<halosim::Faults>,
    /// Settings, in the format of `post settings`.
    #[arg(long, value_parser = json::<halosim::store::Settings>)]
    settings: Option<halosim::store::Settings>,
    /// File to write the CA's certificate to; default: one in the system's temporary folder.
    #[arg(long)]
    ca_file: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Prints the CA's certificate.
    Ca,
    /// Reads a CA certificate from standard input and trusts it for webhook receivers.
    Trust,
    /// A GET on the admin API.
    Get { path: String },
    /// A POST of JSON to the admin API, from the argument or standard input.
    Post { path: String, json: Option<String> },
    /// A DELETE on the admin API.
    Delete { path: String },
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cli = Cli::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    if let Some(command) = cli.command {
        return speak(cli.admin.unwrap_or(ADMIN), command).await;
    }
    let options = Options {
        listen: cli.listen,
        admin: Some(cli.admin.unwrap_or_else(free_admin)),
        seed: cli.seed,
        names: cli.names,
        rate_limit: cli.rate_limit,
        webhook_delay: Duration::from_millis(cli.webhook_delay_ms),
        data: cli.data,
        tenant: cli.tenant,
        faults: cli.faults.unwrap_or_default(),
        settings: cli.settings.unwrap_or_default(),
        ..Options::default()
    };
    let sim = Sim::start(options).await?;
    let ca = cli.ca_file.unwrap_or_else(|| {
        std::env::temp_dir().join(format!("halosim-ca-{}.crt", std::process::id()))
    });
    std::fs::write(&ca, &sim.shared.ca_pem)?;
    let ready = serde_json::json!({
        "url": sim.url, "ca": ca, "client_id": seed::CLIENT_ID, "client_secret": seed::CLIENT_SECRET, "admin": sim.admin_url,
    });
    println!("{ready}");
    std::io::stdout().flush()?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

fn json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|e| e.to_string())
}

/// The default port of the admin API, or any free port if it is taken.
fn free_admin() -> SocketAddr {
    match std::net::TcpListener::bind(ADMIN) {
        Ok(_) => ADMIN,
        Err(_) => SocketAddr::from(([127, 0, 0, 1], 0)),
    }
}

async fn speak(admin: SocketAddr, command: Command) -> Result<(), Box<dyn std::error::Error>> {
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(30))
        .build()?;
    let url = |path: &str| format!("http://{admin}/{}", path.trim_start_matches('/'));
    let input = |given: Option<String>| -> std::io::Result<String> {
        given.map_or_else(
            || {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).map(|_| text)
            },
            Ok,
        )
    };
    let request = match command {
        Command::Ca => http.get(url("/ca")),
        Command::Trust => http.post(url("/trust")).body(input(None)?),
        Command::Get { path } => http.get(url(&path)),
        Command::Post { path, json } => http
            .post(url(&path))
            .header("content-type", "application/json")
            .body(input(json)?),
        Command::Delete { path } => http.delete(url(&path)),
    };
    let response = request.send().await?;
    let status = response.status();
    println!("{}", response.text().await?);
    if !status.is_success() {
        return Err(format!("the simulator returned HTTP {}", status.as_u16()).into());
    }
    Ok(())
}
