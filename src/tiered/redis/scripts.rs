//! The scripts by which the server compares and writes in one step. They are those of the Python
//! package, so that both have the same digests.

use redis::Cmd;
use std::sync::OnceLock;

/// A script of one key, called by its digest once the server has it.
pub(super) struct Script {
    text: &'static str,
    digest: OnceLock<String>,
}

impl Script {
    const fn new(text: &'static str) -> Self {
        Self {
            text,
            digest: OnceLock::new(),
        }
    }

    /// Returns the command that runs it; `whole`: with its text, which the server may lack.
    pub(super) fn command(&self, key: &[u8], arguments: &[&[u8]], whole: bool) -> Cmd {
        let mut command = Cmd::new();
        if whole {
            command.arg("EVAL").arg(self.text);
        } else {
            let digest = || redis::Script::new(self.text).get_hash().to_owned();
            command.arg("EVALSHA").arg(self.digest.get_or_init(digest));
        }
        command.arg(1).arg(key);
        for argument in arguments {
            command.arg(*argument);
        }
        command
    }
}

macro_rules! set_head {
    () => {
        "redis.call('SETRANGE',KEYS[1],4,ARGV[1]) redis.call('SETRANGE',KEYS[1],24,ARGV[2])"
    };
}

macro_rules! announce {
    () => {
        "if redis.call('UNLINK',KEYS[1])==0 then redis.pcall('SET',KEYS[1],'') redis.call('UNLINK',KEYS[1]) end return 1"
    };
}

// The first 24 bytes are compared: the head of a frame, which no two frames share.
pub(super) static SWAP: Script = Script::new(
    "if redis.call('GETRANGE',KEYS[1],0,23)~=ARGV[1] then return 0 end redis.call('SET',KEYS[1],ARGV[2],'PX',ARGV[3]) return 1",
);
pub(super) static RELEASE: Script = Script::new(
    "if redis.call('GETRANGE',KEYS[1],0,23)~=ARGV[1] then return 0 end redis.call('UNLINK',KEYS[1]) return 1",
);
// The removal of an absent key is not announced, so the key is created first. (If there is no
// memory for that, the key is absent anyway.)
pub(super) static REMOVE: Script = Script::new(announce!());
pub(super) static EXPIRE: Script = Script::new(concat!(
    "if redis.call('GETRANGE',KEYS[1],0,3)=='\\241h\\1\\1' and redis.call('STRLEN',KEYS[1])>=54 then ",
    set_head!(),
    " return 1 end ",
    announce!()
));
pub(super) static TOUCH: Script = Script::new(concat!(
    "if redis.call('GETRANGE',KEYS[1],0,23)~=ARGV[4] then return 0 end ",
    set_head!(),
    " redis.call('PEXPIRE',KEYS[1],ARGV[3]) return 1"
));
pub(super) static PUT: Script = Script::new(
    "local t=redis.call('TIME') if t[1]*1000+math.floor(t[2]/1000)>tonumber(ARGV[3]) then return 0 end redis.call('SET',KEYS[1],ARGV[1],'PX',ARGV[2]) return 1",
);
