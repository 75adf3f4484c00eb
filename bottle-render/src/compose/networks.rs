//! The bottle's networks.

use std::collections::BTreeMap;

use bottle_plan::failure::Result;
use bottle_plan::plan::{self, Plan};
use bottle_plan::subnet::not_ours;

use super::model::{External, Inline, Ipam, IpamRange, Network};
use super::{Options, keyed, shared_labels};

pub(super) fn networks(plan: &Plan, options: Options) -> Result<BTreeMap<&'static str, Network>> {
    let networks = &plan.networks;
    if plan.is_strict() {
        return Ok(BTreeMap::from([("egress", external(&networks.egress))]));
    }
    Ok(if options.standalone {
        BTreeMap::from([
            ("internal", Network::Inline(internal(plan)?)),
            ("egress", Network::Inline(inline(plan, &networks.egress)?)),
        ])
    } else {
        BTreeMap::from([
            ("internal", external(&networks.internal)),
            ("egress", external(&networks.egress)),
        ])
    })
}

fn external(network: &plan::Network) -> Network {
    Network::External(External {
        name: network.name.as_str().into(),
        external: true,
    })
}

/// `internal` alone only takes the way out: the host still has an address on the bridge, and every service of it that
/// listens on all addresses answers. `inhibit_ipv4` keeps that address away on every engine; `isolated` says the same to
/// those from 28 on, where both together are fine. Older ones ignore what they don't know.
fn internal(plan: &Plan) -> Result<Inline> {
    Ok(Inline {
        internal: true,
        driver_opts: keyed([
            ("com.docker.network.bridge.gateway_mode_ipv4", "isolated"),
            ("com.docker.network.bridge.gateway_mode_ipv6", "isolated"),
            ("com.docker.network.bridge.inhibit_ipv4", "true"),
        ]),
        ..inline(plan, &plan.networks.internal)?
    })
}

fn inline(plan: &Plan, network: &plan::Network) -> Result<Inline> {
    Ok(Inline {
        name: network.name.as_str().into(),
        driver: "bridge".into(),
        internal: false,
        enable_ipv6: false,
        driver_opts: BTreeMap::new(),
        ipam: Ipam {
            config: vec![IpamRange {
                subnet: network.subnet.as_str().into(),
                gateway: network.gateway,
                ip_range: not_ours(&network.subnet)?.to_string().into(),
            }],
        },
        labels: shared_labels(plan),
    })
}
