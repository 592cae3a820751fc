//! A node with pods on a bridge, servers in them, and a world that the node's default route leads to.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use kontiki_host::testing::Namespace;

/// How long a client waits for an answer that should come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How long a client waits for an answer that should not come.
pub(crate) const IMPATIENCE: Duration = Duration::from_millis(400);

/// What a TCP server at this address says to whom it hears first.
pub(crate) fn tcp(from: &Namespace, to: &str, patience: Duration) -> std::io::Result<String> {
    let to: SocketAddr = to.parse().expect("an address");
    from.inside(move || {
        let mut stream = TcpStream::connect_timeout(&to, patience)?;
        say(&mut stream, patience)
    })
}

/// What a UDP server at this address answers.
pub(crate) fn udp(from: &Namespace, to: &str, patience: Duration) -> std::io::Result<String> {
    let to: SocketAddr = to.parse().expect("an address");
    from.inside(move || udp_from(&UdpSocket::bind("0.0.0.0:0")?, to, patience))
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
pub(crate) fn udp_from(
    socket: &UdpSocket,
    to: SocketAddr,
    patience: Duration,
) -> std::io::Result<String> {
    socket.set_read_timeout(Some(patience))?;
    socket.connect(to)?;
    socket.send(b"x")?;
    let mut buffer = [0; 64];
    let n = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..n]).trim().to_owned())
}

/// Answers over TCP and UDP with this name and the client's address, for as long as the test runs.
pub(crate) fn serve(at: &Namespace, name: &'static str, ip: Ipv4Addr, port: u16) {
    let (listener, socket) = at.inside(|| {
        (
            TcpListener::bind((ip, port)).expect("a free port"),
            UdpSocket::bind((ip, port)).expect("a free port"),
        )
    });
    at.thread(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accepts");
            let peer = stream.peer_addr().expect("connected");
            std::thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() {
                    let _gone_client =
                        stream.write_all(format!("{name} {}\n", peer.ip()).as_bytes());
                }
            });
        }
    });
    at.thread(move || {
        let mut buffer = [0; 16];
        loop {
            let (_, peer) = socket.recv_from(&mut buffer).expect("receives");
            let _gone_client = socket.send_to(format!("{name} {}\n", peer.ip()).as_bytes(), peer);
        }
    });
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
            for (name, value) in [
                ("ipv4/ip_forward", "1"),
                ("bridge/bridge-nf-call-iptables", "1"),
                // The kernel tells one client of no more than one refusal a second; tests are refused more often.
                ("ipv4/icmp_ratelimit", "0"),
            ] {
                std::fs::write(format!("/proc/sys/net/{name}"), value).expect("a setting");
            }
        });
        node.ip("link add kontiki0 type bridge");
        node.ip("addr add 10.244.0.1/24 dev kontiki0");
        node.ip("link set kontiki0 up");
        let pods = ["a", "b"].iter().enumerate().map(|(i, tag)| {
            let pod = Namespace::new(tag);
            node.ip(&format!(
                "link add pod{i} type veth peer name eth0 netns {}",
                pod.name()
            ));
            node.ip(&format!("link set pod{i} master kontiki0 up"));
            node.ip(&format!("link set pod{i} type bridge_slave hairpin on"));
            pod.ip(&format!("addr add {}/24 dev eth0", pod_ip(i)));
            pod.ip("link set eth0 up");
            pod.ip("route add default via 10.244.0.1");
            pod
        });
        let pods = pods.collect();
        node.ip(&format!(
            "link add out0 type veth peer name eth0 netns {}",
            world.name()
        ));
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
        self.world.counted("ip t seen")
    }
}

/// Waits until this holds.
#[allow(
    clippy::disallowed_methods,
    reason = "between two looks at a condition, on a thread of its own"
)]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "not in time: {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
