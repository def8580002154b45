#!/bin/busybox sh
# The first process of the virtual machine: what the test needs is in its
# memory. The kernel hands over what the command line sets.
/bin/busybox mkdir -p /busybox /proc /sys /dev /tmp /run /var/run
/bin/busybox --install -s /busybox
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/busybox HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2>/dev/null
ln -s /proc/self/fd/0 /dev/stdin
echo /busybox/modprobe >/proc/sys/kernel/modprobe
echo 1 >/proc/sys/kernel/printk
# No limits to errors: these are of no namespace.
echo 0 >/proc/sys/net/ipv4/route/error_cost
echo 0 >/proc/sys/net/ipv4/icmp_ratemask
echo 100000 >/proc/sys/net/ipv4/icmp_msgs_per_sec
echo 100000 >/proc/sys/net/ipv4/icmp_msgs_burst
# Else every namespace gets a device of each kind of tunnel.
echo 1 >/proc/sys/net/core/fb_tunnels_only_for_init_net

# What a tool would make the kernel look for at each of its calls.
for module in veth bridge br_netfilter 8021q bonding dummy macvlan vrf vxlan \
    ip_gre ip6_gre ipip sit ip6_tunnel wireguard \
    nf_conntrack nf_conntrack_netlink nf_nat nf_tables nft_ct nft_nat nft_masq nft_redir nft_chain_nat \
    nft_compat nft_counter nft_fib_inet nft_fib_ipv4 nft_fib_ipv6 nft_limit nft_log nft_numgen nft_objref \
    nft_quota nft_reject_inet nft_reject_ipv4 nft_reject_ipv6 nft_reject_bridge nft_hash nft_socket nft_tproxy \
    nft_connlimit nft_synproxy nft_tunnel nft_osf nft_xfrm nft_queue nft_meta_bridge nfnetlink_log \
    ip_tables ip6_tables iptable_filter iptable_nat iptable_mangle iptable_raw iptable_security \
    ip6table_filter ip6table_nat ip6table_mangle ip6table_raw ip6table_security ip_set; do
    modprobe -q "$module" 2>/dev/null
done
cd /lib/modules/*/kernel/net || exit
for file in netfilter/xt_*.ko netfilter/ipset/*.ko ipv4/netfilter/ipt_*.ko ipv6/netfilter/ip6t_*.ko; do
    module=${file##*/}
    modprobe -q "${module%.ko}" 2>/dev/null
done
cd /

/test/kernel
echo $? >/tmp/status
stty -F /dev/ttyS1 raw
cd /tmp && tar -c status $(ls -d lab-kernel-* 2>/dev/null) >/dev/ttyS1
sync
poweroff -f
