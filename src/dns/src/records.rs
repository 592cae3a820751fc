//! What the cluster's names answer: a pure function of what is known.

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ipnet::IpNet;

use crate::cluster::{Cluster, Host, undashed};
use crate::views::{Port, Service};

/// The version of the specification that names follow.
const SCHEMA_VERSION: &str = "1.1.0";
/// How long "there is none" may be remembered: short, because what is asked for is often about to be made.
const NEGATIVE_TTL_SECONDS: u32 = 5;

/// The cluster's domain and what else records depend on.
#[derive(Clone, Debug)]
pub(crate) struct Zone {
    /// The domain, fully qualified and in lower case.
    pub(crate) domain: Name,
    pub(crate) ttl_seconds: u32,
    /// The addresses of the server.
    pub(crate) servers: Vec<IpAddr>,
    /// Ranges whose addresses nobody else knows names for.
    pub(crate) ranges: Vec<IpNet>,
}

/// The answer to one question.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) code: ResponseCode,
    pub(crate) answers: Vec<Record>,
    pub(crate) authorities: Vec<Record>,
    pub(crate) additionals: Vec<Record>,
    /// A name outside of the cluster that an alias leads to, still to be looked up.
    pub(crate) chase: Option<Name>,
}

/// How a question is to be answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// By us.
    Ours(Answer),
    /// By somebody else.
    NotOurs,
}

/// What a name leads to.
enum Found {
    /// There is no such name.
    Nothing,
    /// The name is there; these are its data, of whatever types.
    Data(Vec<RData>),
    /// The data, and addresses of names in it.
    WithAddresses(Vec<RData>, Vec<(Name, IpAddr)>),
    /// An alias.
    Alias(Name),
}

impl Zone {
    /// Whether the question is ours to answer, whatever the answer is.
    pub(crate) fn covers(&self, name: &Name) -> bool {
        self.domain.zone_of(name)
            || reverse(name).is_some_and(|ip| self.ranges.iter().any(|r| r.contains(&ip)))
    }

    /// Answers a question from what is known of the cluster.
    pub(crate) fn answer(&self, cluster: &Cluster, name: &Name, kind: RecordType) -> Verdict {
        if self.domain.zone_of(name) {
            return Verdict::Ours(self.forward(cluster, name, kind));
        }
        let Some(ip) = reverse(name) else {
            return Verdict::NotOurs;
        };
        let found = self.names_of(cluster, ip);
        if found.is_empty() && !self.ranges.iter().any(|r| r.contains(&ip)) {
            return Verdict::NotOurs;
        }
        let found = if found.is_empty() {
            Found::Nothing
        } else {
            Found::Data(found.into_iter().map(|n| RData::PTR(PTR(n))).collect())
        };
        Verdict::Ours(self.finish(name, kind, found))
    }

    fn forward(&self, cluster: &Cluster, name: &Name, kind: RecordType) -> Answer {
        let Some(labels) = labels_below(name, &self.domain) else {
            return self.finish(name, kind, Found::Nothing);
        };
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let found = self.find(cluster, &labels);
        let Found::Alias(target) = found else {
            return self.finish(name, kind, found);
        };
        let mut answer = Answer::default();
        answer
            .answers
            .push(self.record(name, RData::CNAME(CNAME(target.clone()))));
        if kind == RecordType::CNAME {
            return answer;
        }
        if !self.domain.zone_of(&target) {
            answer.chase = Some(target);
            return answer;
        }
        // An alias of a name of our own is followed once: two that lead to one another must not turn in a circle.
        let mut rest = match labels_below(&target, &self.domain) {
            Some(l) => {
                match self.find(cluster, &l.iter().map(String::as_str).collect::<Vec<_>>()) {
                    Found::Alias(_) => return answer,
                    found => self.finish(&target, kind, found),
                }
            }
            None => self.finish(&target, kind, Found::Nothing),
        };
        answer.answers.append(&mut rest.answers);
        Answer {
            answers: answer.answers,
            ..rest
        }
    }

    /// What the labels below the domain lead to, the first label first.
    fn find(&self, cluster: &Cluster, labels: &[&str]) -> Found {
        match labels {
            [] => Found::Data(vec![self.soa(), RData::NS(NS(self.server_name()))]),
            ["dns-version"] => {
                Found::Data(vec![RData::TXT(TXT::new(vec![SCHEMA_VERSION.to_owned()]))])
            }
            ["svc" | "pod" | "dns"] => Found::Data(Vec::new()),
            ["ns", "dns"] => Found::Data(self.servers.iter().map(|ip| RData::from(*ip)).collect()),
            [ns, "svc" | "pod"] if cluster.has_namespace(ns) => Found::Data(Vec::new()),
            [address, ns, "pod"] if cluster.has_namespace(ns) => match undashed(address) {
                Some(ip) => Found::Data(vec![RData::from(ip)]),
                None => Found::Nothing,
            },
            [rest @ .., service, ns, "svc"] => match cluster.services.get(ns, service) {
                Some(s) => self.find_service(cluster, &s, rest),
                None => Found::Nothing,
            },
            _ => Found::Nothing,
        }
    }

    fn find_service(&self, cluster: &Cluster, service: &Service, rest: &[&str]) -> Found {
        let (ns, name) = (&service.metadata.namespace, &service.metadata.name);
        if service.spec.type_ == "ExternalName" {
            let target = Name::from_ascii(&service.spec.external_name).map(fully_qualified);
            return match (rest, target) {
                ([], Ok(target)) => Found::Alias(target),
                _ => Found::Nothing,
            };
        }
        match rest {
            [] => {
                let mut data: Vec<RData> = if service.is_headless() {
                    cluster
                        .hosts(ns, name)
                        .into_iter()
                        .map(|h| RData::from(h.ip))
                        .collect()
                } else {
                    service.ips().into_iter().map(RData::from).collect()
                };
                if service.is_headless() && data.is_empty() {
                    // The name of a service without endpoints is there all the same.
                    return Found::Data(Vec::new());
                }
                let (ports, addresses) = self.ports(cluster, service, |_| true);
                data.extend(ports);
                Found::WithAddresses(data, addresses)
            }
            [protocol] if protocol.starts_with('_') => {
                let known = service
                    .spec
                    .ports
                    .iter()
                    .any(|p| format!("_{}", p.protocol_label()) == *protocol);
                if known {
                    Found::Data(Vec::new())
                } else {
                    Found::Nothing
                }
            }
            [host] if service.is_headless() => {
                let hosts = cluster.hosts(ns, name);
                let ips: Vec<RData> = hosts
                    .iter()
                    .filter(|h| h.label == *host)
                    .map(|h| RData::from(h.ip))
                    .collect();
                if ips.is_empty() {
                    Found::Nothing
                } else {
                    Found::Data(ips)
                }
            }
            [port, protocol] if port.starts_with('_') && protocol.starts_with('_') => {
                let (port, protocol) = (&port[1..], &protocol[1..]);
                let matches =
                    |p: &Port| p.name.eq_ignore_ascii_case(port) && p.protocol_label() == protocol;
                let (ports, addresses) = self.ports(cluster, service, matches);
                if ports.is_empty() {
                    Found::Nothing
                } else {
                    Found::WithAddresses(ports, addresses)
                }
            }
            _ => Found::Nothing,
        }
    }

    /// The SRV data of the named ports that match, and the addresses of what they point to.
    fn ports(
        &self,
        cluster: &Cluster,
        service: &Service,
        matches: impl Fn(&Port) -> bool,
    ) -> (Vec<RData>, Vec<(Name, IpAddr)>) {
        let (ns, name) = (
            service.metadata.namespace.as_str(),
            service.metadata.name.as_str(),
        );
        let named = |p: &Port| !p.name.is_empty() && matches(p);
        let Ok(own) = self.service_name(ns, name) else {
            return (Vec::new(), Vec::new());
        };
        let targets: Vec<(Name, IpAddr, u16)> = if service.is_headless() {
            let below = |h: &Host| own.prepend_label(h.label.as_str()).ok();
            let all = cluster.host_ports((ns, name), named);
            all.iter()
                .filter_map(|(h, port)| Some((below(h)?, h.ip, *port)))
                .collect()
        } else {
            let numbers = service
                .spec
                .ports
                .iter()
                .filter(|p| named(p))
                .map(|p| p.port);
            let ips = service.ips();
            numbers
                .flat_map(|n| {
                    ips.iter()
                        .map(|ip| (own.clone(), *ip, n))
                        .collect::<Vec<_>>()
                })
                .collect()
        };
        let mut addresses: Vec<(Name, IpAddr)> =
            targets.iter().map(|(n, ip, _)| (n.clone(), *ip)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let mut ports: Vec<(Name, u16)> =
            targets.into_iter().map(|(n, _, port)| (n, port)).collect();
        ports.sort_unstable();
        ports.dedup();
        // All weigh the same, and together a hundred, as far as that goes.
        let weight = u16::try_from(100 / ports.len().max(1))
            .unwrap_or_default()
            .max(1);
        let srv = |(n, port)| RData::SRV(SRV::new(0, weight, port, n));
        (ports.into_iter().map(srv).collect(), addresses)
    }

    fn names_of(&self, cluster: &Cluster, ip: IpAddr) -> Vec<Name> {
        if let Some(s) = cluster.service_at(ip) {
            return self
                .service_name(&s.metadata.namespace, &s.metadata.name)
                .into_iter()
                .collect();
        }
        let hosts = cluster.hosts_at(ip);
        let name = |(ns, service, label): &(String, String, String)| {
            self.service_name(ns, service)
                .and_then(|n| n.prepend_label(label.as_str()))
                .ok()
        };
        let mut names: Vec<Name> = hosts.iter().filter_map(name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn service_name(&self, ns: &str, service: &str) -> Result<Name, hickory_proto::ProtoError> {
        self.domain
            .prepend_label("svc")?
            .prepend_label(ns)?
            .prepend_label(service)
    }

    fn server_name(&self) -> Name {
        let below = |n: &Name, label| {
            n.prepend_label(label)
                .expect("a checked domain has room for two labels")
        };
        below(&below(&self.domain, "dns"), "ns")
    }

    fn soa(&self) -> RData {
        let mail = self
            .domain
            .prepend_label("hostmaster")
            .expect("a checked domain has room for a label");
        RData::SOA(SOA::new(
            self.server_name(),
            mail,
            1,
            7200,
            1800,
            86400,
            NEGATIVE_TTL_SECONDS,
        ))
    }

    fn record(&self, name: &Name, data: RData) -> Record {
        Record::from_rdata(name.clone(), self.ttl_seconds, data)
    }

    /// Of what was found, what was asked for; if that is nothing, the record that says for how long.
    fn finish(&self, name: &Name, kind: RecordType, found: Found) -> Answer {
        let (code, data, addresses) = match found {
            Found::Nothing => (ResponseCode::NXDomain, Vec::new(), Vec::new()),
            Found::Data(data) => (ResponseCode::NoError, data, Vec::new()),
            Found::WithAddresses(data, addresses) => (ResponseCode::NoError, data, addresses),
            Found::Alias(target) => (
                ResponseCode::NoError,
                vec![RData::CNAME(CNAME(target))],
                Vec::new(),
            ),
        };
        let wanted = data
            .into_iter()
            .filter(|d| kind == RecordType::ANY || d.record_type() == kind);
        let answers: Vec<Record> = wanted.map(|d| self.record(name, d)).collect();
        let mut out = Answer {
            code,
            ..Answer::default()
        };
        if answers.is_empty() {
            let mut soa = self.record(&self.domain, self.soa());
            soa.ttl = NEGATIVE_TTL_SECONDS;
            out.authorities.push(soa);
        } else if kind == RecordType::SRV {
            out.additionals = addresses
                .into_iter()
                .map(|(n, ip)| self.record(&n, RData::from(ip)))
                .collect();
        }
        out.answers = answers;
        out
    }
}

pub(crate) fn fully_qualified(mut name: Name) -> Name {
    name.set_fqdn(true);
    name
}

/// The labels of the name that stand before the domain, in lower case; `None` if one of them is not text.
fn labels_below(name: &Name, domain: &Name) -> Option<Vec<String>> {
    let count = usize::from(name.num_labels()).checked_sub(usize::from(domain.num_labels()))?;
    let text = |l: &[u8]| std::str::from_utf8(l).ok().map(str::to_ascii_lowercase);
    name.iter().take(count).map(text).collect()
}

/// The address that a reverse name stands for.
fn reverse(name: &Name) -> Option<IpAddr> {
    let net = name.parse_arpa_name().ok()?;
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}
