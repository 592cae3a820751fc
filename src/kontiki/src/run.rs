//! From the command line to what it asks for.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kontiki_base::{CancellationToken, Metrics, Tasks, logging};
use kontiki_client::Remote;

use crate::args::{self, Args, Command, VERSION};
use crate::config::{self, Config};
use crate::host_facts::Machine;
use crate::{down, master, worker};

/// What is logged where nothing else is said. openraft tells of its own start at length.
const LOG_LEVEL_DEFAULT: &str = "info,openraft=error";
/// Threads that serve requests and loops. More would hold more memory, and two cores are what most masters have.
const WORKER_THREADS_MAX: usize = 8;

/// Does what the command line asks for.
///
/// # Errors
/// Whatever went wrong, with its causes.
pub(crate) fn run(args: Args) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let long_running = matches!(
        args.command,
        Command::Up(_) | Command::Server(_) | Command::Agent(_)
    );
    let threads = if long_running {
        cores.clamp(2, WORKER_THREADS_MAX)
    } else {
        1
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()?;
    runtime.block_on(dispatch(args.command))
}

async fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Up(run) => up(&settle(run).await?).await,
        Command::Server(run) => server(&settle(run).await?).await,
        Command::Agent(agent) => {
            let tls = worker::KubeletTls::read(
                &agent.tls_cert_file,
                &agent.tls_private_key_file,
                &agent.kubeconfig,
            )?;
            let remote = Remote::from_kubeconfig(&agent.kubeconfig)?;
            run_agent(&settle(agent.run).await?, remote, tls).await
        }
        Command::Down(d) => {
            let purge = d.purge;
            down::down(&settle(d.run).await?, purge).await
        }
        Command::Status(s) => status(&s).await,
        Command::Get(g) => {
            kontiki_cli::raw::run(&connect(&g.access)?, &g.raw, &mut std::io::stdout()).await
        }
        Command::Apply(a) => apply(&a).await,
        Command::Image(args::Image::Import(i)) => {
            let runtime = worker::containerd_config(&settle(i.run).await?);
            for file in &i.files {
                kontiki_node::images::import_file(&runtime, &absolute(file)?).await?;
            }
            Ok(())
        }
        Command::Version(v) => version(v.output.as_deref()),
    }
}

/// Reads the configuration, starts logging, settles every option.
async fn settle(run: args::Run) -> Result<Config> {
    let options = config::with_file(run.options, run.config.as_deref())?;
    let format = match options.log_format.as_deref() {
        None | Some("text") => logging::Format::Text,
        Some("json") => logging::Format::Json,
        Some(other) => bail!("--log-format {other:?} is not known; use text or json"),
    };
    logging::init(
        options.log_level.as_deref().unwrap_or(LOG_LEVEL_DEFAULT),
        format,
    )?;
    let machine = Machine::look(options.pod_bridge.as_deref()).await;
    Config::settle(options, &machine)
}

async fn up(config: &Config) -> Result<()> {
    let _running = claim(config)?;
    let tasks = tasks_until_signal();
    let metrics = Metrics::default();
    let master = master::start(config, &metrics, &tasks).await?;
    let tls = worker::KubeletTls::of_master(&master.identities);
    worker::start(config, &master.api, tls, &metrics, &tasks).await?;
    until_end(&tasks, Some(master)).await
}

async fn server(config: &Config) -> Result<()> {
    let _running = claim(config)?;
    let tasks = tasks_until_signal();
    let master = master::start(config, &Metrics::default(), &tasks).await?;
    until_end(&tasks, Some(master)).await
}

async fn run_agent(config: &Config, remote: Remote, tls: worker::KubeletTls) -> Result<()> {
    let _running = claim(config)?;
    let tasks = tasks_until_signal();
    let api: Arc<dyn kontiki_reconcile::Api> = Arc::new(remote);
    worker::start(config, &api, tls, &Metrics::default(), &tasks).await?;
    until_end(&tasks, None).await
}

/// A group that SIGTERM and SIGINT end.
fn tasks_until_signal() -> Tasks {
    let tasks = Tasks::new(CancellationToken::new());
    let token = tasks.token().clone();
    tasks.spawn_transient("signals", async move {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut term), Ok(mut int)) = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
        ) else {
            tracing::error!("signals cannot be caught; SIGTERM ends the process at once");
            return;
        };
        tokio::select! {
            _ = term.recv() => tracing::info!("SIGTERM: stopping; containers go on"),
            _ = int.recv() => tracing::info!("SIGINT: stopping; containers go on"),
            () = token.cancelled() => {}
        }
        token.cancel();
    });
    tasks
}

async fn until_end(tasks: &Tasks, master: Option<master::Master>) -> Result<()> {
    tasks.token().cancelled().await;
    tasks.stop().await;
    if let Some(m) = master {
        m.store.shutdown().await;
    }
    match tasks.failed() {
        Some(why) => bail!("{why}; its log lines above say why"),
        None => Ok(()),
    }
}

/// Takes the run directory: one node a directory. The file says which process it is, and is locked while it lives.
fn claim(config: &Config) -> Result<std::fs::File> {
    let path = down::pid_file(config);
    std::fs::create_dir_all(&config.run_dir)
        .with_context(|| format!("cannot make {}", config.run_dir.display()))?;
    let mut file = std::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!(
            "a node runs already under {}; stop it with `kontiki down`, or give this one directories of its own",
            config.run_dir.display()
        );
    }
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{} is not a path", path.display()))
}

fn kubeconfig_path(access: &args::Access) -> PathBuf {
    access
        .kubeconfig
        .clone()
        .unwrap_or_else(|| access.config_dir.join("admin.kubeconfig"))
}

fn connect(access: &args::Access) -> Result<Remote> {
    let path = kubeconfig_path(access);
    Remote::from_kubeconfig(&path)
        .with_context(|| format!("cannot use {}; does a node run here?", path.display()))
}

async fn status(s: &args::Status) -> Result<()> {
    let mut stdout = std::io::stdout();
    let mut nowhere = std::io::sink();
    let out: &mut dyn Write = if s.quiet { &mut nowhere } else { &mut stdout };
    kontiki_cli::status::wait(
        || connect(&s.access),
        s.server_only,
        Duration::from_secs(s.wait),
        out,
    )
    .await
}

async fn apply(a: &args::Apply) -> Result<()> {
    let client = connect(&a.access)?;
    for file in &a.filename {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        kontiki_cli::apply::run(&client, &text, &mut std::io::stdout())
            .await
            .with_context(|| file.display().to_string())?;
    }
    Ok(())
}

fn version(output: Option<&str>) -> Result<()> {
    let mut out = std::io::stdout();
    if output.is_some() {
        let v = serde_json::json!({"version": VERSION, "platform": format!("linux/{}", std::env::consts::ARCH)});
        writeln!(out, "{v:#}")?;
    } else {
        writeln!(out, "kontiki {VERSION}")?;
    }
    Ok(())
}
