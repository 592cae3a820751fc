//! Name resolution of pods: the resolver configuration by policy, and the managed `/etc/hosts`.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::cri::v1 as cri;
use crate::pod::Pod;

/// What resolvers of pods are made of.
#[derive(Clone, Debug, Default)]
pub struct Resolver<'a> {
    /// The addresses of the cluster's DNS.
    pub cluster_dns: &'a [IpAddr],
    /// The cluster's domain.
    pub cluster_domain: &'a str,
    /// The text of the machine's `resolv.conf`.
    pub resolv_conf: &'a str,
}

/// The limits of resolver libraries that upstream keeps to.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;

fn of_machine(resolv_conf: &str) -> cri::DnsConfig {
    let mut out = cri::DnsConfig::default();
    for line in resolv_conf.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => out.servers.extend(words.next().map(str::to_owned)),
            Some("search") => out.searches = words.map(str::to_owned).collect(),
            Some("options") => out.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    out
}

/// The resolver configuration of a pod.
pub fn config(pod: &Pod, r: &Resolver<'_>) -> cri::DnsConfig {
    let policy = pod.spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirst" => !pod.spec.host_network,
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut out = if policy == "None" {
        cri::DnsConfig::default()
    } else if cluster && !r.cluster_dns.is_empty() {
        let domain = r.cluster_domain;
        let mut searches = vec![
            format!("{}.svc.{domain}", pod.metadata.namespace),
            format!("svc.{domain}"),
            domain.to_owned(),
        ];
        for s in of_machine(r.resolv_conf).searches {
            if !searches.contains(&s) {
                searches.push(s);
            }
        }
        let servers = r.cluster_dns.iter().map(IpAddr::to_string).collect();
        cri::DnsConfig {
            servers,
            searches,
            options: vec!["ndots:5".into()],
        }
    } else {
        of_machine(r.resolv_conf)
    };
    if let Some(c) = &pod.spec.dns_config {
        let add = |to: &mut Vec<String>, from: &[String]| {
            for s in from {
                if !to.contains(s) {
                    to.push(s.clone());
                }
            }
        };
        add(&mut out.servers, &c.nameservers);
        add(&mut out.searches, &c.searches);
        for o in &c.options {
            let text = o
                .value
                .as_ref()
                .map_or_else(|| o.name.clone(), |v| format!("{}:{v}", o.name));
            let same = |old: &String| old.split(':').next() == Some(o.name.as_str());
            out.options.retain(|old| !same(old));
            out.options.push(text);
        }
    }
    out.servers.truncate(NAMESERVERS_MAX);
    out.searches.truncate(SEARCHES_MAX);
    out
}

/// The domain of a pod that has a subdomain, as `sub.ns.svc.cluster.local`.
pub fn pod_domain(pod: &Pod, cluster_domain: &str) -> Option<String> {
    let sub = pod.spec.subdomain.as_deref().filter(|s| !s.is_empty())?;
    Some(format!(
        "{sub}.{}.svc.{cluster_domain}",
        pod.metadata.namespace
    ))
}

/// The text of a pod's `/etc/hosts`. A pod in the machine's network starts from the machine's file.
pub fn hosts_file(
    pod: &Pod,
    pod_ips: &[String],
    cluster_domain: &str,
    machine_hosts: &str,
) -> String {
    let mut out = String::new();
    if pod.spec.host_network {
        out.push_str("# Kubernetes-managed hosts file (host network).\n");
        out.push_str(machine_hosts);
    } else {
        out.push_str(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        let host = pod.hostname();
        for ip in pod_ips {
            let line = match pod_domain(pod, cluster_domain) {
                Some(domain) => format!("{ip}\t{host}.{domain}\t{host}\n"),
                None => format!("{ip}\t{host}\n"),
            };
            out.push_str(&line);
        }
    }
    if !pod.spec.host_aliases.is_empty() {
        out.push_str("\n# Entries added by HostAliases.\n");
        for a in &pod.spec.host_aliases {
            writeln!(out, "{}\t{}", a.ip, a.hostnames.join("\t"))
                .expect("writing to a String does not fail");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const MACHINE: &str = "# x\nnameserver 192.0.2.1\nsearch example.com\noptions timeout:2\n";

    #[allow(
        clippy::needless_pass_by_value,
        reason = "a json! reads better at the calls"
    )]
    fn configured(spec: Value) -> cri::DnsConfig {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"namespace": "n", "name": "p"}, "spec": spec}),
        )
        .expect("a pod");
        let dns = [IpAddr::from([10, 96, 0, 10])];
        config(
            &pod,
            &Resolver {
                cluster_dns: &dns,
                cluster_domain: "cluster.local",
                resolv_conf: MACHINE,
            },
        )
    }

    #[test]
    fn cluster_first_looks_in_the_namespace_first() {
        let c = configured(json!({}));
        assert_eq!(c.servers, ["10.96.0.10"]);
        assert_eq!(
            c.searches,
            [
                "n.svc.cluster.local",
                "svc.cluster.local",
                "cluster.local",
                "example.com"
            ]
        );
        assert_eq!(c.options, ["ndots:5"]);
    }

    #[test]
    fn the_machines_network_gets_the_machines_resolver_unless_asked() {
        assert_eq!(
            configured(json!({"hostNetwork": true})).servers,
            ["192.0.2.1"]
        );
        let with = json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"});
        assert_eq!(configured(with).servers, ["10.96.0.10"]);
        assert_eq!(
            configured(json!({"dnsPolicy": "Default"})).options,
            ["timeout:2"]
        );
    }

    #[test]
    fn a_pods_own_configuration_is_added_and_its_options_win() {
        let c = configured(
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.9"], "searches": ["a.b"]}}),
        );
        assert_eq!(
            (c.servers.as_slice(), c.searches.as_slice()),
            (&["192.0.2.9".to_owned()][..], &["a.b".to_owned()][..])
        );
        let c = configured(
            json!({"dnsConfig": {"options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
        );
        assert_eq!(c.options, ["ndots:2", "edns0"]);
    }

    #[test]
    fn the_hosts_file_names_the_pod_and_its_aliases() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {"subdomain": "s", "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["x", "y"]}]},
        }))
        .expect("a pod");
        let text = hosts_file(&pod, &["10.244.0.5".into()], "cluster.local", "");
        assert!(
            text.contains("10.244.0.5\tp.s.n.svc.cluster.local\tp\n"),
            "{text}"
        );
        assert!(text.ends_with("192.0.2.7\tx\ty\n"), "{text}");
    }
}
