//! Machines made of network namespaces: a node with pods on a bridge, and a world that the node's default route leads to.
//! Nothing of it has a way out of this machine.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How long a client waits for an answer that should come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How long a client waits for an answer that should not come.
pub(crate) const IMPATIENCE: Duration = Duration::from_millis(400);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Runs a program that has to succeed; gives its output.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// A network namespace, gone when this is dropped.
pub(crate) struct Namespace(String);

impl Namespace {
    pub(crate) fn new(tag: &str) -> Namespace {
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let ns = Namespace(format!("kn{}-{number}-{tag}", std::process::id()));
        run("ip", &["netns", "add", &ns.0]);
        ns.inside(|| {
            // Neighbour discovery and the like would be counted among the packets.
            std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").expect("a setting");
        });
        ns.ip("link set lo up");
        ns
    }

    /// Runs `ip` here; the arguments are parted by spaces.
    pub(crate) fn ip(&self, args: &str) -> String {
        let all: Vec<&str> = ["-n", &self.0].into_iter().chain(args.split(' ')).collect();
        run("ip", &all)
    }

    /// Runs `nft` here.
    pub(crate) fn nft(&self, args: &str) -> String {
        let net = format!("--net=/run/netns/{}", self.0);
        let all: Vec<&str> = [&*net, "nft"].into_iter().chain(args.split(' ')).collect();
        run("nsenter", &all)
    }

    /// Calls a function on a thread that is in this namespace.
    pub(crate) fn inside<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        let name = &self.0;
        std::thread::scope(|s| {
            let thread = s.spawn(move || {
                enter(name);
                f()
            });
            thread.join().unwrap_or_else(|p| std::panic::resume_unwind(p))
        })
    }

    /// Starts a thread in this namespace.
    pub(crate) fn thread(&self, f: impl FnOnce() + Send + 'static) -> std::thread::JoinHandle<()> {
        let name = self.0.clone();
        std::thread::spawn(move || {
            enter(&name);
            f();
        })
    }

    /// What a TCP server at this address says to whom it hears first.
    pub(crate) fn tcp(&self, to: &str, patience: Duration) -> std::io::Result<String> {
        let to: SocketAddr = to.parse().expect("an address");
        self.inside(move || {
            let mut stream = TcpStream::connect_timeout(&to, patience)?;
            say(&mut stream, patience)
        })
    }

    /// What a UDP server at this address answers.
    pub(crate) fn udp(&self, to: &str, patience: Duration) -> std::io::Result<String> {
        let to: SocketAddr = to.parse().expect("an address");
        self.inside(move || udp_from(&UdpSocket::bind("0.0.0.0:0")?, to, patience))
    }

    /// Answers over TCP and UDP with this name and the client's address.
    pub(crate) fn serve(&self, name: &'static str, port: u16) {
        self.serve_at(name, Ipv4Addr::UNSPECIFIED, port);
    }

    /// As [`Namespace::serve`], on one address.
    pub(crate) fn serve_at(&self, name: &'static str, ip: Ipv4Addr, port: u16) {
        let (listener, socket) = self.inside(|| {
            (TcpListener::bind((ip, port)).expect("a free port"), UdpSocket::bind((ip, port)).expect("a free port"))
        });
        self.thread(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("accepts");
                let peer = stream.peer_addr().expect("connected");
                std::thread::spawn(move || {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).is_ok() {
                        let _gone_client = stream.write_all(format!("{name} {}\n", peer.ip()).as_bytes());
                    }
                });
            }
        });
        self.thread(move || {
            let mut buffer = [0; 16];
            loop {
                let (_, peer) = socket.recv_from(&mut buffer).expect("receives");
                let _gone_client = socket.send_to(format!("{name} {}\n", peer.ip()).as_bytes(), peer);
            }
        });
    }
}

/// Sends a byte and reads the line that comes back.
pub(crate) fn say(stream: &mut TcpStream, patience: Duration) -> std::io::Result<String> {
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"x")?;
    let (mut line, mut byte) = (Vec::new(), [0]);
    loop {
        stream.read_exact(&mut byte)?;
        if byte[0] == b'\n' {
            return Ok(String::from_utf8(line).expect("text"));
        }
        line.push(byte[0]);
    }
}

/// Sends a byte from this socket and reads the answer.
pub(crate) fn udp_from(socket: &UdpSocket, to: SocketAddr, patience: Duration) -> std::io::Result<String> {
    socket.set_read_timeout(Some(patience))?;
    socket.connect(to)?;
    socket.send(b"x")?;
    let mut buffer = [0; 64];
    let n = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..n]).trim().to_owned())
}

fn enter(name: &str) {
    let file = File::open(format!("/run/netns/{name}")).expect("the namespace is there");
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("tests run as root");
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _already_gone = Command::new("ip").args(["netns", "delete", &self.0]).output();
    }
}

/// A node, two pods on its bridge, and the world behind its default route.
pub(crate) struct Machine {
    pub(crate) node: Namespace,
    pub(crate) pods: Vec<Namespace>,
    pub(crate) world: Namespace,
}

pub(crate) const NODE_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const WORLD_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// The address of a pod.
pub(crate) fn pod_ip(i: usize) -> IpAddr {
    let last = u8::try_from(i + 5).expect("few pods");
    IpAddr::from([10, 244, 0, last])
}

impl Machine {
    /// A machine on which pods reach one another and the world; there are no services yet.
    pub(crate) fn new() -> Machine {
        let (node, world) = (Namespace::new("node"), Namespace::new("world"));
        node.inside(|| {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("a setting");
            std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "1").expect("a setting");
            // The kernel tells one client of no more than one refusal a second; tests are refused more often.
            std::fs::write("/proc/sys/net/ipv4/icmp_ratelimit", "0").expect("a setting");
        });
        node.ip("link add kontiki0 type bridge");
        node.ip("addr add 10.244.0.1/24 dev kontiki0");
        node.ip("link set kontiki0 up");
        let pods = ["a", "b"].iter().enumerate().map(|(i, tag)| {
            let pod = Namespace::new(tag);
            node.ip(&format!("link add pod{i} type veth peer name eth0 netns {}", pod.0));
            node.ip(&format!("link set pod{i} master kontiki0 up"));
            node.ip(&format!("link set pod{i} type bridge_slave hairpin on"));
            pod.ip(&format!("addr add {}/24 dev eth0", pod_ip(i)));
            pod.ip("link set eth0 up");
            pod.ip("route add default via 10.244.0.1");
            pod
        });
        let pods = pods.collect();
        node.ip(&format!("link add out0 type veth peer name eth0 netns {}", world.0));
        node.ip(&format!("addr add {NODE_IP}/24 dev out0"));
        node.ip("link set out0 up");
        node.ip(&format!("route add default via {WORLD_IP}"));
        world.ip(&format!("addr add {WORLD_IP}/24 dev eth0"));
        world.ip("link set eth0 up");
        world.nft("add table ip t");
        world.nft("add chain ip t seen { type filter hook prerouting priority -300; }");
        world.nft("add rule ip t seen ip daddr 10.96.0.0/12 counter");
        Machine { node, pods, world }
    }

    /// How many packets to service addresses left the node.
    pub(crate) fn leaked(&self) -> u64 {
        let listing = self.world.nft("list chain ip t seen");
        let words: Vec<&str> = listing.split_whitespace().collect();
        let at = words.iter().position(|w| *w == "packets").expect("there is a counter");
        words[at + 1].parse().expect("a number")
    }
}

/// Waits until this holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
