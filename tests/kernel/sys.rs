//! The system calls that have no safe wrapper: packet and raw sockets with
//! their ancillary data, and emptying connection tracking.

// AF_PACKET addresses, ancillary data and netlink are plain memory to libc.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::libc;

/// Opens a socket that never blocks.
pub fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed; the descriptor is new and ours.
    unsafe {
        let fd = libc::socket(family, kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, protocol);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Sets an option that is a number.
pub fn set(fd: &OwnedFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    let size = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the option's value is a number of that size, alive during the call.
    let done = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), size) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Binds a socket to a device.
pub fn bind(fd: &OwnedFd, device: &str) -> io::Result<()> {
    let size = device.len() as libc::socklen_t;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_BINDTODEVICE);
    // SAFETY: the name is as long as said, and alive during the call.
    let done = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, device.as_ptr().cast(), size) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A socket that sees every frame of every interface but those it sends.
pub fn sniffer() -> io::Result<OwnedFd> {
    let fd = socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from((libc::ETH_P_ALL as u16).to_be()))?;
    set(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 4 << 20)?;
    Ok(fd)
}

/// A frame that a sniffer saw.
pub struct Sniffed {
    /// The interface's index.
    pub index: u32,
    /// Whether it was leaving by it.
    pub outgoing: bool,
    /// Its length in the buffer.
    pub length: usize,
}

/// Takes the next frame from a sniffer; none if there is none now.
pub fn sniff(fd: &OwnedFd, buffer: &mut [u8]) -> Option<Sniffed> {
    // SAFETY: all zeros is an address; buffer and address outlive the call and
    // are as long as said.
    unsafe {
        let mut from: libc::sockaddr_ll = zeroed();
        let mut size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        let length = libc::recvfrom(
            fd.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
            (&raw mut from).cast(),
            &raw mut size,
        );
        let length = usize::try_from(length).ok()?;
        let outgoing = from.sll_pkttype == libc::PACKET_OUTGOING;
        Some(Sniffed { index: from.sll_ifindex as u32, outgoing, length })
    }
}

/// Puts a frame on the wire of an interface.
pub fn put(fd: &OwnedFd, index: u32, frame: &[u8]) -> io::Result<()> {
    // SAFETY: all zeros is an address; frame and address outlive the call and
    // are as long as said.
    let sent = unsafe {
        let mut to: libc::sockaddr_ll = zeroed();
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_protocol = u16::from_ne_bytes([frame[12], frame[13]]);
        to.sll_ifindex = index as i32;
        libc::sendto(
            fd.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A raw socket that gets what INPUT lets pass of a protocol.
pub fn listener(v6: bool, protocol: u8) -> io::Result<OwnedFd> {
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    let fd = socket(family, libc::SOCK_RAW, protocol.into())?;
    if v6 {
        for option in [libc::IPV6_RECVPKTINFO, libc::IPV6_RECVHOPLIMIT, libc::IPV6_RECVTCLASS] {
            set(&fd, libc::IPPROTO_IPV6, option, 1)?;
        }
    } else {
        set(&fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
    }
    Ok(fd)
}

/// What a raw socket got, and what the kernel says beside it.
pub struct Got {
    /// The length in the buffer: with the header for IPv4, without for IPv6.
    pub length: usize,
    /// The index of the interface it came in by.
    pub index: u32,
    /// Source, destination, hop limit and traffic class, for IPv6.
    pub header: Option<(Ipv6Addr, Ipv6Addr, u8, u8)>,
}

/// Control messages in the kernel's format: level, type, content.
fn messages(mut bytes: &[u8]) -> Vec<(i32, i32, &[u8])> {
    let mut all = Vec::new();
    while bytes.len() >= 16 {
        let length = usize::from_ne_bytes(bytes[..8].try_into().expect("eight bytes"));
        let word = |at: usize| i32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        if length < 16 || length > bytes.len() {
            break;
        }
        all.push((word(8), word(12), &bytes[16..length]));
        bytes = &bytes[length.next_multiple_of(8).min(bytes.len())..];
    }
    all
}

/// Takes the next packet from a listener; none if there is none now.
pub fn take(fd: &OwnedFd, v6: bool, buffer: &mut [u8]) -> Option<Got> {
    // 8 bytes aligned, as control messages are.
    let mut control = [0_u64; 32];
    // SAFETY: all zeros is an empty message and address; buffers outlive the
    // call and are as long as said; the kernel tells how much it filled in.
    let (length, from, filled) = unsafe {
        let mut from: libc::sockaddr_in6 = zeroed();
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut message: libc::msghdr = zeroed();
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of::<[u64; 32]>();
        let length = libc::recvmsg(fd.as_raw_fd(), &raw mut message, 0);
        (usize::try_from(length).ok()?, from, message.msg_controllen)
    };
    let bytes: Vec<u8> = control.iter().flat_map(|w| w.to_ne_bytes()).take(filled).collect();
    let mut index = 0;
    let mut header = (Ipv6Addr::from(from.sin6_addr.s6_addr), Ipv6Addr::UNSPECIFIED, 0, 0);
    let number = |content: &[u8]| u32::from_ne_bytes(content[..4].try_into().expect("four bytes"));
    for (level, kind, content) in messages(&bytes) {
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => index = number(content),
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let address: [u8; 16] = content[..16].try_into().expect("an address");
                header.1 = address.into();
                index = number(&content[16..]);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => header.2 = number(content) as u8,
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => header.3 = number(content) as u8,
            _ => {}
        }
    }
    Some(Got { length, index, header: v6.then_some(header) })
}

/// A raw socket that takes packets with their own header.
pub fn sender(v6: bool) -> io::Result<OwnedFd> {
    if v6 {
        let fd = socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_RAW)?;
        set(&fd, libc::IPPROTO_IPV6, libc::IPV6_HDRINCL, 1)?;
        // The source may be any: the route look-up asks with it.
        set(&fd, libc::IPPROTO_IPV6, libc::IPV6_FREEBIND, 1)?;
        return Ok(fd);
    }
    let fd = socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW)?;
    set(&fd, libc::SOL_SOCKET, libc::SO_BROADCAST, 1)?;
    Ok(fd)
}

/// Sends a packet that has its own header, its source told to the route look-up.
pub fn send(fd: &OwnedFd, packet: &[u8], src: IpAddr, dst: IpAddr) -> io::Result<()> {
    let mut control = Vec::with_capacity(40);
    let mut header = |length: usize, level: i32, kind: i32| {
        control.extend((16 + length).to_ne_bytes());
        control.extend(level.to_ne_bytes());
        control.extend(kind.to_ne_bytes());
    };
    match src {
        IpAddr::V4(src) => {
            header(12, libc::IPPROTO_IP, libc::IP_PKTINFO);
            control.extend([0; 4]);
            control.extend(src.octets());
            control.extend([0; 8]);
        }
        IpAddr::V6(src) => {
            header(20, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO);
            control.extend(src.octets());
            control.extend([0; 8]);
        }
    }
    let words: Vec<u64> =
        control.chunks(8).map(|c| u64::from_ne_bytes(c.try_into().expect("eight bytes"))).collect();
    // SAFETY: all zeros is an empty message and address; what it points to
    // outlives the call and is as long as said.
    let sent = unsafe {
        let (mut to4, mut to6): (libc::sockaddr_in, libc::sockaddr_in6) = (zeroed(), zeroed());
        let mut part = libc::iovec { iov_base: packet.as_ptr().cast_mut().cast(), iov_len: packet.len() };
        let mut message: libc::msghdr = zeroed();
        match dst {
            IpAddr::V4(dst) => {
                to4.sin_family = libc::AF_INET as u16;
                to4.sin_addr.s_addr = u32::from_ne_bytes(dst.octets());
                message.msg_name = (&raw mut to4).cast();
                message.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            }
            IpAddr::V6(dst) => {
                to6.sin6_family = libc::AF_INET6 as u16;
                to6.sin6_addr.s6_addr = dst.octets();
                message.msg_name = (&raw mut to6).cast();
                message.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            }
        }
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = words.as_ptr().cast_mut().cast();
        message.msg_controllen = match src {
            IpAddr::V4(_) => 28,
            IpAddr::V6(_) => 36,
        };
        libc::sendmsg(fd.as_raw_fd(), &raw const message, 0)
    };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A socket to netfilter's netlink.
pub fn netfilter() -> io::Result<OwnedFd> {
    socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER)
}

/// Forgets every connection of a namespace (`IPCTNL_MSG_CT_DELETE` without
/// attributes).
pub fn forget(fd: &OwnedFd) -> io::Result<()> {
    const DELETE: u16 = 1 << 8 | 2;
    const REQUEST_ACK: u16 = 1 | 4;
    let mut message = Vec::with_capacity(20);
    message.extend(20_u32.to_ne_bytes());
    message.extend(DELETE.to_ne_bytes());
    message.extend(REQUEST_ACK.to_ne_bytes());
    message.extend([0; 12]);
    let mut reply = [0_u8; 256];
    // SAFETY: both buffers outlive the calls and are as long as said; a
    // datagram to netlink without an address goes to the kernel.
    let (sent, got) = unsafe {
        let sent = libc::send(fd.as_raw_fd(), message.as_ptr().cast(), message.len(), 0);
        (sent, libc::recv(fd.as_raw_fd(), reply.as_mut_ptr().cast(), reply.len(), 0))
    };
    if sent < 0 || got < 20 {
        return Err(io::Error::last_os_error());
    }
    match i32::from_ne_bytes(reply[16..20].try_into().expect("four bytes")) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(-code)),
    }
}
