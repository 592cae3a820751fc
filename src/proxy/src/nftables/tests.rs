//! The backend against a packet filter that is only data.

use kontiki_host::FakeNft;
use proptest::prelude::*;

use super::*;
use crate::plan::{Endpoint, Nowhere, Protocol, Target, diff};

fn config() -> NftablesConfig {
    NftablesConfig {
        service_cidr: "10.96.0.0/12".parse().expect("valid"),
        cluster_cidr: Some("10.244.0.0/16".parse().expect("valid")),
        masquerade_all: false,
        node_port_addresses: Vec::new(),
        local_vips: vec![LocalVip {
            ip: [10, 96, 0, 10].into(),
            protocol: Protocol::Udp,
            port: 53,
        }],
    }
}

/// Few names, addresses and ports, so that services often share them.
fn a_port() -> impl Strategy<Value = (PortKey, Arc<PortPlan>)> {
    let endpoint = (1u8..4, any::<bool>()).prop_map(|(n, local)| Endpoint {
        ip: [10, 244, 0, n].into(),
        port: 80,
        local,
    });
    let target = proptest::collection::btree_set(endpoint, 0..3).prop_map(|e| {
        if e.is_empty() {
            Target::Nowhere(Nowhere::Reject)
        } else {
            Target::Endpoints(e.into_iter().collect())
        }
    });
    let ips = || {
        proptest::collection::btree_set(
            (1u8..4).prop_map(|n| Ipv4Addr::from([198, 51, 100, n])),
            0..3,
        )
    };
    let name = prop_oneof![Just("a"), Just("b"), Just("c")];
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    (
        (name, protocol, prop_oneof![Just(53u16), Just(80)]),
        (
            ips(),
            ips(),
            proptest::option::of(30000u16..30003),
            proptest::option::of(1u32..3),
            any::<bool>(),
        ),
        (
            target.clone(),
            target.clone(),
            target,
            any::<bool>(),
            8u8..12,
        ),
    )
        .prop_map(
            |((name, protocol, port), (external, balancer, node_port, affinity, ranges), rest)| {
                let (internal, external_target, inside, external_local, last) = rest;
                let key = PortKey {
                    namespace: "ns".into(),
                    service: name.into(),
                    protocol,
                    port,
                };
                let plan = PortPlan {
                    cluster_ips: vec![[10, 96, 0, last].into()],
                    external_ips: external.into_iter().collect(),
                    balancer_ips: balancer.into_iter().collect(),
                    source_ranges: if ranges {
                        vec!["192.0.2.0/24".parse().expect("valid")]
                    } else {
                        Vec::new()
                    },
                    node_port,
                    affinity_seconds: affinity,
                    internal,
                    external: external_target,
                    external_local,
                    inside,
                };
                (key, Arc::new(plan))
            },
        )
}

fn a_plan() -> impl Strategy<Value = Plan> {
    proptest::collection::vec(a_port(), 0..6).prop_map(|p| p.into_iter().collect())
}

fn block_on<F: Future>(f: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(f)
}

/// The table that a plan gives when it is programmed where there was nothing.
async fn fresh(plan: &Plan) -> kontiki_host::nft::FakeTable {
    let nft = Arc::new(FakeNft::default());
    let mut backend = Nftables::new(config(), nft.clone());
    backend.prepare().await.expect("works");
    backend.replace(plan).await.expect("works");
    nft.table(FAMILY, NAME).expect("it was made")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever way leads from plan to plan, the table is the one that the last plan gives by itself.
    #[test]
    fn changes_lead_to_the_same_table_as_programming_anew(plans in proptest::collection::vec(a_plan(), 1..5)) {
        block_on(async {
            let nft = Arc::new(FakeNft::default());
            let mut backend = Nftables::new(config(), nft.clone());
            backend.replace(&Plan::new()).await.expect("works");
            let mut now = Plan::new();
            for plan in &plans {
                let changes = diff(&now, plan);
                changes.apply(&mut now);
                prop_assert_eq!(&now, plan);
                if let Err(e) = backend.change(&changes).await {
                    return Err(TestCaseError::fail(kontiki_base::chain(&e)));
                }
                prop_assert_eq!(nft.table(FAMILY, NAME).expect("there"), fresh(plan).await);
            }
            Ok(())
        })?;
    }

    /// The same when another process takes over in between, which knows nothing of what was programmed.
    #[test]
    fn taking_over_leads_to_the_same_table(before in a_plan(), after in a_plan()) {
        block_on(async {
            let nft = Arc::new(FakeNft::default());
            Nftables::new(config(), nft.clone()).replace(&before).await.expect("works");
            let was = nft.table(FAMILY, NAME);
            let mut next = Nftables::new(config(), nft.clone());
            next.prepare().await.expect("works");
            prop_assert_eq!(nft.table(FAMILY, NAME), was, "preparing changes no service");
            if let Err(e) = next.replace(&after).await {
                return Err(TestCaseError::fail(kontiki_base::chain(&e)));
            }
            prop_assert_eq!(nft.table(FAMILY, NAME).expect("there"), fresh(&after).await);
            Ok(())
        })?;
    }
}

fn plan_of(name: &str, endpoints: &[[u8; 4]]) -> (PortKey, Arc<PortPlan>) {
    let list = endpoints
        .iter()
        .map(|ip| Endpoint {
            ip: (*ip).into(),
            port: 8080,
            local: false,
        })
        .collect();
    let target = Target::Endpoints(list);
    let key = PortKey {
        namespace: "ns".into(),
        service: name.into(),
        protocol: Protocol::Tcp,
        port: 80,
    };
    let plan = PortPlan {
        cluster_ips: vec![[10, 96, 1, 1].into()],
        external_ips: Vec::new(),
        balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        node_port: None,
        affinity_seconds: None,
        internal: target.clone(),
        external: target.clone(),
        external_local: false,
        inside: target,
    };
    (key, Arc::new(plan))
}

#[tokio::test]
async fn a_change_of_endpoints_touches_one_chain() {
    let nft = Arc::new(FakeNft::default());
    let mut backend = Nftables::new(config(), nft.clone());
    let (a, b) = (
        plan_of("a", &[[10, 244, 0, 1]]),
        plan_of("b", &[[10, 244, 0, 1]]),
    );
    backend.replace(&Plan::from([a, b])).await.expect("works");
    let changes = Changes {
        set: vec![plan_of("a", &[[10, 244, 0, 1], [10, 244, 0, 2]])],
        removed: Vec::new(),
    };
    backend.change(&changes).await.expect("works");
    let want = "flush chain ip kontiki-proxy svc-ns/a/tcp/80\n\
                add rule ip kontiki-proxy svc-ns/a/tcp/80 ip saddr != 10.244.0.0/16 jump mark-masquerade\n\
                add rule ip kontiki-proxy svc-ns/a/tcp/80 meta l4proto tcp dnat to numgen random mod 2 \
                map { 0 : 10.244.0.1 . 8080, 1 : 10.244.0.2 . 8080 }\n";
    assert_eq!(nft.transactions().last().map(String::as_str), Some(want));
    backend.change(&Changes::default()).await.expect("works");
    assert_eq!(
        nft.transactions().len(),
        2,
        "nothing changed, nothing was run"
    );
}

#[tokio::test]
async fn the_first_service_by_name_has_an_address_that_two_want() {
    let nft = Arc::new(FakeNft::default());
    let mut backend = Nftables::new(config(), nft.clone());
    let (a, b) = (
        plan_of("a", &[[10, 244, 0, 1]]),
        plan_of("b", &[[10, 244, 0, 2]]),
    );
    let owner = || {
        nft.table(FAMILY, NAME).expect("there").maps["service-ips"]["10.96.1.1 . tcp . 80"].clone()
    };
    backend.replace(&Plan::from([b])).await.expect("works");
    assert_eq!(owner(), "goto svc-ns/b/tcp/80");
    let key = a.0.clone();
    backend
        .change(&Changes {
            set: vec![a],
            removed: Vec::new(),
        })
        .await
        .expect("works");
    assert_eq!(owner(), "goto svc-ns/a/tcp/80");
    backend
        .change(&Changes {
            set: Vec::new(),
            removed: vec![key],
        })
        .await
        .expect("works");
    assert_eq!(owner(), "goto svc-ns/b/tcp/80");
}

#[tokio::test]
async fn local_addresses_are_never_redirected_or_refused() {
    let (mut key, mut plan) = plan_of("dns", &[[10, 244, 0, 1]]);
    (key.protocol, key.port) = (Protocol::Udp, 53);
    for target in [plan.internal.clone(), Target::Nowhere(Nowhere::Reject)] {
        let p = Arc::make_mut(&mut plan);
        (p.cluster_ips, p.internal) = (vec![[10, 96, 0, 10].into()], target);
        let table = fresh(&Plan::from([(key.clone(), plan.clone())])).await;
        assert!(table.maps["service-ips"].is_empty() && table.maps["refused-ips"].is_empty());
    }
}
