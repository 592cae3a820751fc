//! A whole node: start to Ready, apply to the first answer through the Service, idle memory and CPU.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::host::Host;
use crate::node::{Node, Role};
use crate::{process, wait};

const SETTLE: Duration = Duration::from_secs(20);
const IDLE_SPAN: Duration = Duration::from_secs(30);
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// The sample: the nginx Deployment with its Services.
pub const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/nginx.yaml");
/// Makes the image of the sample out of Debian's packages.
const WEB_IMAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/web-image");

/// Runs the measurements and says them line by line.
///
/// # Errors
/// The node does not start, or the sample does not answer.
pub fn run(kontiki: &Path, say: &mut dyn FnMut(&str)) -> Result<()> {
    let image = sample_image()?;
    let host = Host::enter()?;
    let node = Node::start(kontiki, Role::Up)?;
    say(&format!(
        "start to node Ready, containerd included: {} ms (goal 3,000 ms)",
        node.ready_after.as_millis()
    ));
    import(&node, &image)?;
    let took = deploy_sample(&node)?;
    say(&format!(
        "kubectl apply to the first answer through the Service: {} ms (goal 2,000 ms)",
        took.as_millis()
    ));
    std::thread::park_timeout(SETTLE);
    let (cpu, start) = (process::cpu_time_exact(node.pid())?, Instant::now());
    while let Some(left) = IDLE_SPAN.checked_sub(start.elapsed()) {
        std::thread::park_timeout(left);
    }
    let used = process::cpu_time_exact(node.pid())?.saturating_sub(cpu);
    say(&format!(
        "idle with one node and one pod: RSS {:.0} MiB (goal 100; upstream's four processes 489), {:.2} % of a core (goal 1; upstream 3.7)",
        f64::from(u32::try_from(process::rss_kib(node.pid())?)?) / 1024.0,
        used.as_secs_f64() / start.elapsed().as_secs_f64() * 100.0
    ));
    drop(node);
    drop(host);
    Ok(())
}

/// Builds the archive with the sample's image, unless it is in the cache, and gives its path. To be called before a test host is
/// entered, which reaches no package.
///
/// # Errors
/// The packages cannot be had.
pub fn sample_image() -> Result<String> {
    Ok(process::run(WEB_IMAGE, &[])?.trim().to_owned())
}

/// Loads an archive of images into the node.
///
/// # Errors
/// containerd refuses it.
pub fn import(node: &Node, archive: &str) -> Result<()> {
    node.kontiki(&["image", "import", archive]).map(drop)
}

/// Applies the sample and waits for an answer through its ClusterIP; gives the time from before the apply.
///
/// # Errors
/// There is no answer in time.
pub fn deploy_sample(node: &Node) -> Result<Duration> {
    let start = Instant::now();
    node.kubectl(&["apply", "-f", SAMPLE])?;
    let ip = node.kubectl(&[
        "get",
        "service",
        "nginx",
        "-o",
        "jsonpath={.spec.clusterIP}",
    ])?;
    let address: SocketAddr = format!("{ip}:80")
        .parse()
        .context("a Service has an address")?;
    wait::until("an answer through the Service", ANSWER_DEADLINE, || {
        let answer = http_get(address, "/")?;
        if answer.contains("nginx") {
            Ok(())
        } else {
            bail!("unexpected answer: {answer}")
        }
    })?;
    Ok(start.elapsed())
}

/// A plain HTTP GET; the answer with its head.
///
/// # Errors
/// The server cannot be reached within a second, or breaks off.
pub fn http_get(address: SocketAddr, path: &str) -> Result<String> {
    let timeout = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
