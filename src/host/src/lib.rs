//! Links, routes, nftables, cgroups and mounts as traits with fakes.
