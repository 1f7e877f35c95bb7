//! `kubectl halopsa`: put `kubectl-halopsa` on the PATH. Only wiring here.

use clap::{Parser, Subcommand};
use halopsa_operator::cli::activity::Format;
use halopsa_operator::cli::{self, Cluster, Error};
use halopsa_operator::net;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "kubectl halopsa",
    version,
    about = "Shows and checks what the HaloPSA operator does"
)]
struct Cli {
    /// Namespace; default: that of the kubectl context.
    #[arg(short, long, global = true)]
    namespace: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists the tenant's clients and shows which are imported.
    Clients {
        connection: String,
        /// Prints ImportedClients for these names or ids instead, ready for kubectl apply.
        #[arg(long, num_args = 1..)]
        import: Vec<String>,
    },
    /// Checks credentials, permissions, webhook, deliveries and import, and says what to do.
    Doctor { connection: String },
    /// Explains what agents may call.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Classifies replies or tickets. Reads JSON lines and writes each with the result added.
    #[command(subcommand)]
    Classify(ClassifyCommand),
    /// Shows what agents did: calls, decisions, approvals.
    Activity {
        /// An ImportedClient or a Ticket; default: the whole namespace.
        name: Option<String>,
        /// Keeps running and shows new entries.
        #[arg(short, long)]
        follow: bool,
        /// Machine-readable: one JSON object per line.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum PolicyCommand {
    /// Shows the decision about a call, the rule that made it, and why.
    Explain {
        /// ImportedClient whose agent makes the call.
        client: String,
        /// The tool's name, as the agent calls it.
        tool: String,
        /// The call's arguments as JSON.
        #[arg(default_value = "{}")]
        arguments: String,
        /// HaloPSA's id of the ticket, for rules about its status or priority.
        #[arg(long)]
        ticket: Option<i64>,
    },
}

#[derive(Subcommand)]
enum ClassifyCommand {
    /// Replies to a request for approval: {"text": ...} or {"html": ...} per line.
    Reply,
    /// Tickets: {"summary": ..., "details": ...} per line. Is it sensitive, and why?
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
            eprintln!("error: {}", cli::terminal::safe(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<(), Error> {
    // Needs no cluster: MSPs try it on their own history.
    if let Command::Classify(what) = &cli.command {
        let (input, output) = (std::io::stdin().lock(), std::io::stdout().lock());
        return match what {
            ClassifyCommand::Reply => cli::classify::replies(input, output),
            ClassifyCommand::Ticket => cli::classify::tickets(input, output),
        };
    }
    // What this machine reaches its user reaches as well.
    net::install(net::Rules {
        unrestricted: true,
        ..net::Rules::default()
    });
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
            let format = if json { Format::Json } else { Format::Text };
            let print = |line: &str| println!("{line}");
            cli::activity::run(&cluster, name.as_deref(), follow, format, print).await?
        }
        Command::Doctor { connection } => {
            let report = cli::doctor::run(&cluster, &connection).await?;
            print!("{}", report.text);
            if !report.healthy {
                return Err(Error::Unhealthy);
            }
        }
    }
    Ok(())
}
