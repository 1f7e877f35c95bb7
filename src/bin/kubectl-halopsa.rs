//! `kubectl halopsa`: put `kubectl-halopsa` on the PATH. Only wiring here.

use clap::{Parser, Subcommand};
use halopsa_operator::cli::{self, Cluster, Error};
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "kubectl halopsa",
    version,
    about = "HaloPSA on Kubernetes, for people"
)]
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
    /// Tells what may be called.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Shows how texts are read. Reads JSON lines, writes each with what was seen in it.
    #[command(subcommand)]
    Classify(ClassifyCommand),
    /// Shows what agents did: calls, decisions, approvals.
    Activity {
        /// An ImportedClient or a Ticket; default: the whole namespace.
        name: Option<String>,
        /// Goes on as things happen.
        #[arg(short, long)]
        follow: bool,
        /// Machine-readable, a JSON object a line.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum PolicyCommand {
    /// Says what is decided about a call, by which rule, and why.
    Explain {
        /// ImportedClient whose agent would call.
        client: String,
        /// The tool's name, as the agent calls it.
        tool: String,
        /// The call's arguments, JSON.
        #[arg(default_value = "{}")]
        arguments: String,
        /// HaloPSA's id of the ticket, for rules that ask for its status or priority.
        #[arg(long)]
        ticket: Option<i64>,
    },
}

#[derive(Subcommand)]
enum ClassifyCommand {
    /// Replies to a request for approval: {"text": ...} or {"html": ...} a line.
    Reply,
    /// Tickets: {"summary": ..., "details": ...} a line. Is one sensitive, and why?
    Ticket,
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
    // Needs no cluster: an MSP tries it on its own history.
    if let Command::Classify(what) = &cli.command {
        let (input, output) = (std::io::stdin().lock(), std::io::stdout().lock());
        return match what {
            ClassifyCommand::Reply => cli::classify::replies(input, output),
            ClassifyCommand::Ticket => cli::classify::tickets(input, output),
        };
    }
    let cluster = Cluster::connect(cli.namespace).await?;
    match cli.command {
        Command::Clients { connection, import } => print!(
            "{}",
            cli::clients::run(&cluster, &connection, &import).await?
        ),
        Command::Classify(_) => {}
        Command::Policy(PolicyCommand::Explain {
            client,
            tool,
            arguments,
            ticket,
        }) => {
            print!(
                "{}",
                cli::policy::explain(&cluster, &client, &tool, &arguments, ticket).await?
            );
        }
        Command::Activity { name, follow, json } => {
            cli::activity::run(&cluster, name.as_deref(), follow, json).await?
        }
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
