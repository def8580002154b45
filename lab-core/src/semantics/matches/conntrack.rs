//! conntrack and state (`xt_conntrack.c`, `xt_state.c`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::addr::{Masked, PortRange};
use crate::model::{ConntrackMatch, ConntrackStatus, Direction, Not, PortValue};
use crate::semantics::conntrack::{Connection, Info, TEMPLATE};
use crate::semantics::header::in_range;
use crate::semantics::{Context, Tri};

fn has(connection: &Connection, status: ConntrackStatus) -> bool {
    match status {
        ConntrackStatus::Expected => false,
        ConntrackStatus::SeenReply => connection.seen_reply,
        ConntrackStatus::Assured => connection.assured,
        ConntrackStatus::Confirmed => connection.confirmed,
        ConntrackStatus::Snat => connection.snat,
        ConntrackStatus::Dnat => connection.dnat,
    }
}

/// Whether time decides if a connection has one of these.
fn in_time(connection: &Connection, wanted: &BTreeSet<ConntrackStatus>) -> bool {
    wanted.contains(&ConntrackStatus::Assured)
        && connection.original.protocol == 17
        && connection.seen_reply
        && !wanted.iter().any(|s| has(connection, *s))
}

/// Whether all but the states hold for a template. Its addresses are blank, and
/// not compared here.
fn of_template(condition: &ConntrackMatch) -> Tri {
    if condition.direction == Some(Direction::Reply) {
        Tri::No
    } else if condition.asks_of_connection() {
        Tri::Unknown(TEMPLATE.into())
    } else {
        Tri::Yes
    }
}

/// Whether the condition holds. Without a connection only the state is
/// looked at, and any other part fails.
pub fn holds(condition: &ConntrackMatch, at: &Context) -> Tri {
    let state = at.info.state();
    if let Some(states) = &condition.states {
        let (plain, pseudo) = &states.value;
        let truth =
            plain.contains(&state) || at.connection.is_some_and(|c| pseudo.iter().any(|s| has(c, *s)));
        if truth == states.invert {
            return Tri::No;
        }
    }
    let Some(connection) = at.connection else {
        if at.info == Info::Template {
            return of_template(condition);
        }
        return condition.states.is_some().into();
    };
    if let Some(direction) = condition.direction {
        let actual = match at.info {
            Info::Invalid | Info::Untracked => return Tri::No,
            info => info.direction(),
        };
        if direction != actual {
            return Tri::No;
        }
    }
    let address = |wanted: &Option<Not<Masked>>, actual: IpAddr| {
        wanted.as_ref().is_none_or(|w| w.value.contains(actual) != w.invert)
    };
    let plain = address(&condition.original_source, connection.original.src)
        && address(&condition.original_destination, connection.original.dst)
        && address(&condition.reply_source, connection.reply.src)
        && address(&condition.reply_destination, connection.reply.dst)
        && condition.protocol.as_ref().is_none_or(|p| (p.value == connection.original.protocol) != p.invert)
        && condition.status.as_ref().is_none_or(|s| {
            // An old UDP flow is assured, a young one is not.
            in_time(connection, &s.value) || s.value.iter().any(|status| has(connection, *status)) != s.invert
        });
    let port = |wanted: &Option<Not<PortRange>>, actual: PortValue| match wanted {
        None => Tri::Yes,
        Some(w) => in_range(actual, w.value).inverted(w.invert),
    };
    Tri::from(plain)
        .and(|| port(&condition.original_sport, connection.original.sport))
        .and(|| port(&condition.original_dport, connection.original.dport))
        .and(|| port(&condition.reply_sport, connection.reply.sport))
        .and(|| port(&condition.reply_dport, connection.reply.dport))
        .and(|| match &condition.status {
            Some(s) if in_time(connection, &s.value) => Tri::Unknown("how old the UDP flow is".into()),
            _ => Tri::Yes,
        })
        .and(|| match condition.expire {
            None => Tri::Yes,
            Some(_) => Tri::Unknown("how long the connection lives yet".into()),
        })
}
