//! `kubectl halopsa`: put `kubectl-halopsa` on the PATH. Only wiring here.

use clap::{Parser, Subcommand};
use halopsa_operator::cli::{self, Cluster, Error};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "kubectl halopsa", version, about = "HaloPSA on Kubernetes, for people")]
struct Cli {
    /// Namespace; default: the context's.
    #[arg(short, long, global = true)]
    namespace: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists the tenant's clients and marks the imported ones.
    Clients {
        connection: String,
        /// Prints ImportedClients for these names or ids instead, ready for kubectl apply.
        #[arg(long, num_args = 1..)]
        import: Vec<String>,
    },
    /// Checks URL, secret, permissions, webhook, deliveries and import, and says what to do.
    Doctor { connection: String },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Unhealthy) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<(), Error> {
    let cluster = Cluster::connect(cli.namespace).await?;
    match cli.command {
        Command::Clients { connection, import } => print!("{}", cli::clients::run(&cluster, &connection, &import).await?),
        Command::Doctor { connection } => {
            let (report, healthy) = cli::doctor::run(&cluster, &connection).await?;
            print!("{report}");
            if !healthy {
                return Err(Error::Unhealthy);
            }
        }
    }
    Ok(())
}
