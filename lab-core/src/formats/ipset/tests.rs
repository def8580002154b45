use super::*;

/// Every line comes back as it was read.
fn same(text: &str) -> Vec<Ipset> {
    let sets = parse("ipset.save", text).unwrap();
    assert_eq!(print(&sets), text);
    sets
}

#[test]
fn every_type_comes_back_line_by_line() {
    let sets = same(
        "\
create a hash:ip family inet hashsize 1024 maxelem 65536 bucketsize 12 initval 0x1a2b3c4d
add a 10.0.0.1
create b hash:net family inet6 hashsize 1024 maxelem 65536 timeout 300
add b fd00::/64 timeout 12
add b fd00::1 timeout 0 nomatch
create c hash:ip,port family inet
add c 10.0.0.1,tcp:80
add c 10.0.0.1,udp:80-90
add c 10.0.0.1,icmp:echo-request
add c 10.0.0.1,icmp:8/4
add c 10.0.0.1,gre:0
create d hash:net,port family inet6
add d fd00::/32,ipv6-icmp:neighbour-solicitation
create e hash:ip,port,ip family inet
add e 10.0.0.1,tcp:80,10.0.0.2
create f hash:ip,port,net family inet
add f 10.0.0.1,tcp:80,10.0.0.0/8
create g hash:net,net family inet
add g 10.0.0.0/8,192.168.0.0/16
create h hash:net,port,net family inet
add h 10.0.0.0/8,sctp:9,192.168.0.0/16
create i hash:mac hashsize 1024
add i 52:54:00:FD:74:63
create j hash:ip,mac family inet
add j 10.0.0.1,52:54:00:FD:74:63
create k hash:net,iface family inet
add k 10.0.0.0/8,eth0
add k 10.0.0.0/8,physdev:tap0
create l hash:ip,mark family inet markmask 0xffffffff
add l 10.0.0.1,0x000000ff
create m bitmap:ip range 10.0.0.0-10.0.0.255
add m 10.0.0.1-10.0.0.9
create n bitmap:ip,mac range 10.0.0.0-10.0.0.255
add n 10.0.0.1,52:54:00:FD:74:63
create o bitmap:port range 0-1024
add o 80
add o 100-200
create p list:set size 8
add p a
add p b timeout 3
create q hash:ip family inet netmask 24
add q 10.1.2.0
add q 10.1.3.0 comment \"a nomatch \\\"net\\\"\"
",
    );
    assert_eq!(sets[0].fields, [IpsetField::Ip]);
    assert_eq!(sets[1].family, Family::Ipv6);
    assert!(sets[1].elements[1].nomatch && !sets[1].elements[0].nomatch);
    let ping = IpsetItem::Port { protocol: Some(1), ports: PortRange::from(8 << 8) };
    assert_eq!(sets[2].elements[2].items[1], ping);
    assert_eq!(sets[15].members, ["a", "b"]);
    assert!(sets.iter().all(|s| s.unmodelled.is_empty()));
    assert_eq!(sets[16].elements[0].items, [IpsetItem::Net("10.1.2.0/24".parse().unwrap())]);
    assert!(!sets[16].elements[1].nomatch, "a comment is no option");
}

#[test]
fn an_unknown_type_keeps_its_elements_as_text() {
    let sets = same("create x hash:future family inet\nadd x 1:2:3,whatever timeout 5\n");
    assert_eq!(sets[0].unmodelled, "type hash:future");
    assert_eq!(sets[0].elements[0].options, "1:2:3,whatever timeout 5");
}

#[test]
fn plain_ports_are_tcp_and_host_bits_go() {
    let sets = parse("f", "create a hash:net,port\nadd a 10.1.2.3/8,80\n").unwrap();
    assert_eq!(print(&sets), "create a hash:net,port\nadd a 10.0.0.0/8,tcp:80\n");
}

#[test]
fn errors_name_file_line_and_text() {
    let error = |text: &str| parse("ipset.save", text).unwrap_err().to_string();
    assert_eq!(error("add web 10.0.0.1\n"), "ipset.save:1: no set named web: `add web 10.0.0.1`");
    assert_eq!(error("create l list:set\nadd l web\n"), "ipset.save:2: no set named web: `add l web`");
    assert_eq!(
        error("create a hash:ip\n\ncreate a hash:ip\n"),
        "ipset.save:3: set a is given twice: `create a hash:ip`"
    );
    assert_eq!(
        error("create a hash:ip,port\nadd a 10.0.0.1\n"),
        "ipset.save:2: bad value: `10.0.0.1` does not have 2 parts: `add a 10.0.0.1`"
    );
    assert_eq!(
        error("create a hash:ip\nadd a fd00::1\n"),
        "ipset.save:2: bad value: `fd00::1` is not an IPv4 address: `add a fd00::1`"
    );
    assert_eq!(error("create a\n"), "ipset.save:1: the line ends too early: `create a`");
    assert_eq!(error("destroy a\n"), "ipset.save:1: expected `create` or `add`, not `destroy`: `destroy a`");
}
