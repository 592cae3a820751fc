//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::Options;

/// The version of Kubernetes whose API is served, with our own behind it.
pub(crate) const VERSION: &str = concat!("v1.36.2+kontiki", env!("CARGO_PKG_VERSION"));

/// Kubernetes on a raft: a whole cluster out of one program.
#[derive(Debug, Parser)]
#[command(name = "kontiki", version = VERSION, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What the program does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs master and worker in one process: a whole cluster on one node
    Up(Run),
    /// Runs a master: store, API server, scheduler, controllers
    Server(Run),
    /// Runs a worker: kubelet, service proxy, cluster DNS
    Agent(Agent),
    /// Stops the node on this machine, its containers, and removes its links, rules, mounts and cgroups
    Down(Down),
    /// Prints the state of the cluster; fails if it is not ready
    Status(Status),
    /// Prints the answer to a GET of the API
    Get(Get),
    /// Applies manifests (server-side)
    Apply(Apply),
    /// Handles the images of this node
    #[command(subcommand)]
    Image(Image),
    /// Prints the version
    Version(Version),
}

/// Options of the commands that run a node.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// Configuration file; the options below, in camelCase [default: config.yaml in the configuration directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) options: Options,
}

/// Options of `agent`.
#[derive(Debug, clap::Args)]
pub(crate) struct Agent {
    #[command(flatten)]
    pub(crate) run: Run,
    /// Kubeconfig of the node: the master's address, the CA, a client certificate of system:node:NAME
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: PathBuf,
    /// Certificate of the kubelet's own server, issued by the cluster's CA
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert_file: PathBuf,
    /// Its key
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_private_key_file: PathBuf,
}

/// Options of `down`.
#[derive(Debug, clap::Args)]
pub(crate) struct Down {
    #[command(flatten)]
    pub(crate) run: Run,
    /// Also removes the state, the keys and the logs of this node
    #[arg(long)]
    pub(crate) purge: bool,
}

/// Where the admin kubeconfig is.
#[derive(Debug, clap::Args)]
pub(crate) struct Access {
    /// Where keys, certificates and kubeconfigs are kept
    #[arg(long, value_name = "DIR", default_value = "/etc/kontiki")]
    pub(crate) config_dir: PathBuf,
    /// Kubeconfig to use [default: admin.kubeconfig in the configuration directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
}

/// Options of `status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) access: Access,
    /// Leaves the nodes out
    #[arg(long)]
    pub(crate) server_only: bool,
    /// Waits up to so many seconds until all is ready
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) wait: u64,
    /// Prints nothing; the exit code says it
    #[arg(long)]
    pub(crate) quiet: bool,
}

/// Options of `get`.
#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    #[command(flatten)]
    pub(crate) access: Access,
    /// The path, as in /api/v1/nodes
    #[arg(long, value_name = "PATH")]
    pub(crate) raw: String,
}

/// Options of `apply`.
#[derive(Debug, clap::Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    pub(crate) access: Access,
    /// Manifests to apply
    #[arg(short, long, value_name = "FILE", required = true)]
    pub(crate) filename: Vec<PathBuf>,
}

/// What can be done with images.
#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Loads images from archives (docker save, OCI layout)
    Import(Import),
}

/// Options of `image import`.
#[derive(Debug, clap::Args)]
pub(crate) struct Import {
    #[command(flatten)]
    pub(crate) run: Run,
    /// The archives
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

/// Options of `version`.
#[derive(Debug, clap::Args)]
pub(crate) struct Version {
    /// Prints JSON
    #[arg(short, long, value_parser = ["json"])]
    pub(crate) output: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn no_controllers_at_all_can_be_asked_for() {
        let args = Args::parse_from(["kontiki", "server", "--controllers="]);
        let Command::Server(run) = args.command else {
            panic!("a server was asked for")
        };
        assert_eq!(run.options.controllers, Some(vec![String::new()]));
    }
}
