//! The commands about a connection and the server.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use super::commands::{self, wrong_arity};
use super::{NOT_AN_INTEGER, Outcome, Session, length};
use crate::resp::{self, Hello, integer_of};

const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

/// The version reported: that of Azure Managed Redis.
const VERSION: &str = "7.4.0";

impl Session {
    pub(super) fn client(&mut self, arguments: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        let subcommand = String::from_utf8_lossy(arguments[0]).to_ascii_lowercase();
        match (subcommand.as_str(), &arguments[1..]) {
            ("setname", [name]) => {
                self.set_name(name)?;
                resp::status(out, "OK");
            }
            ("setinfo", [_, _]) => resp::status(out, "OK"),
            ("getname", []) if self.name.is_empty() => resp::null(out, self.protocol),
            ("getname", []) => resp::bulk(out, &self.name),
            ("id", []) => resp::integer(out, self.id),
            ("info", []) => {
                let name = String::from_utf8_lossy(&self.name);
                let text = format!("id={} name={name} db=0 resp={}\n", self.id, self.protocol);
                resp::bulk(out, text.as_bytes());
            }
            ("setname" | "setinfo" | "getname" | "id" | "info", _) => {
                return Err(wrong_arity(&format!("client|{subcommand}")));
            }
            _ => return Err(unknown_subcommand("CLIENT", arguments[0])),
        }
        Ok(())
    }

    pub(super) fn cluster(&mut self, _: &[&[u8]], _: &mut Vec<u8>) -> Outcome {
        Err("ERR This instance has cluster support disabled".into())
    }

    pub(super) fn command(&mut self, arguments: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        let Some(subcommand) = arguments.first() else {
            resp::array(out, 0);
            return Ok(());
        };
        match subcommand.to_ascii_lowercase().as_slice() {
            b"count" => resp::integer(out, length(commands::COUNT)),
            b"docs" => resp::map(out, self.protocol, 0),
            _ => return Err(unknown_subcommand("COMMAND", subcommand)),
        }
        Ok(())
    }

    pub(super) fn hello(&mut self, arguments: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        let hello = Hello::parse(arguments)?;
        if let Some(name) = hello.name {
            self.set_name(name)?;
        }
        self.protocol = hello.version.unwrap_or(self.protocol);
        resp::map(out, self.protocol, 7);
        let text = |out: &mut Vec<u8>, name: &str, value: &str| {
            resp::bulk(out, name.as_bytes());
            resp::bulk(out, value.as_bytes());
        };
        text(out, "server", "redis");
        text(out, "version", VERSION);
        resp::bulk(out, b"proto");
        resp::integer(out, self.protocol.into());
        resp::bulk(out, b"id");
        resp::integer(out, self.id);
        text(out, "mode", "standalone");
        text(out, "role", "master");
        resp::bulk(out, b"modules");
        resp::array(out, 0);
        Ok(())
    }

    pub(super) fn info(&mut self, _: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        let keys = self.keys().count();
        let mut text = format!(
            "# Server\r\nredis_version:{VERSION}\r\nredis_mode:standalone\r\n\r\n\
             # Replication\r\nrole:master\r\nconnected_slaves:0\r\n\r\n\
             # Cluster\r\ncluster_enabled:0\r\n\r\n# Keyspace\r\n"
        );
        if keys > 0 {
            writeln!(text, "db0:keys={keys},expires=0,avg_ttl=0\r")
                .expect("writing to a String cannot fail");
        }
        resp::bulk(out, text.as_bytes());
        Ok(())
    }

    /// `PING`, and `ECHO`, which differs in its arity alone.
    pub(super) fn ping(&mut self, arguments: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        match arguments.first() {
            Some(text) => resp::bulk(out, text),
            None => resp::status(out, "PONG"),
        }
        Ok(())
    }

    pub(super) fn reset(&mut self, _: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        (self.protocol, self.name) = (2, Vec::new());
        resp::status(out, "RESET");
        Ok(())
    }

    pub(super) fn select(&mut self, arguments: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        match integer_of(arguments[0]) {
            Some(0) => resp::status(out, "OK"),
            Some(_) => return Err("ERR DB index is out of range".into()),
            None => return Err(NOT_AN_INTEGER.into()),
        }
        Ok(())
    }

    pub(super) fn time(&mut self, _: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default();
        resp::array(out, 2);
        resp::bulk(out, now.as_secs().to_string().as_bytes());
        resp::bulk(out, now.subsec_micros().to_string().as_bytes());
        Ok(())
    }

    pub(super) fn unwatch(&mut self, _: &[&[u8]], out: &mut Vec<u8>) -> Outcome {
        resp::status(out, "OK");
        Ok(())
    }

    fn set_name(&mut self, name: &[u8]) -> Outcome {
        if !name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
            return Err(BAD_NAME.into());
        }
        self.name = name.to_vec();
        Ok(())
    }
}

fn unknown_subcommand(command: &str, subcommand: &[u8]) -> String {
    let subcommand = String::from_utf8_lossy(subcommand);
    format!("ERR unknown subcommand '{subcommand:.128}'. Try {command} HELP.")
}
