//! The example service as a real process: exit codes, signals, the admin port, the configuration switches.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use baetyl_testkit::{ChildGuard, PATIENCE, TestDir, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

struct Greeter {
    dir: TestDir,
    child: ChildGuard,
}

impl Greeter {
    fn start(variables: &[(&str, &str)]) -> Self {
        let dir = TestDir::new();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let mut command = greeter();
        command
            .args(["run", "--data-dir"])
            .arg(dir.path())
            .envs(variables.iter().copied())
            .stderr(log);
        let child = ChildGuard::spawn(&mut command);
        Self { dir, child }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Waits for the word in the log.
    async fn says(&self, word: &str) {
        until(PATIENCE, word, || async {
            let log = self.log();
            if log.contains(word) { Ok(()) } else { Err(log) }
        })
        .await;
    }

    /// The answer of a page once the server is there.
    async fn page(&self, server: &str, path: &str) -> String {
        let file: PathBuf = self.dir.join(format!("run/{server}.addr"));
        until(PATIENCE, path, || async {
            let addr = std::fs::read_to_string(&file)?;
            http_get(addr.trim(), path).await
        })
        .await
    }

    /// Waits until it says that it is ready.
    async fn is_ready(&self) {
        until(PATIENCE, "ready", || async {
            let page = self.page("greeter-admin", "/readyz").await;
            if page.starts_with("HTTP/1.1 200") {
                Ok(())
            } else {
                Err(page)
            }
        })
        .await;
    }
}

fn greeter() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baetyl-greeter"));
    command.env_clear().stdin(Stdio::null());
    command
}

pub(crate) async fn http_get(addr: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn a_service_serves_tells_its_state_and_stops_when_asked() {
    let mut greeter = Greeter::start(&[]);
    greeter.is_ready().await;
    let page = greeter.page("rest", "/").await;
    assert!(page.ends_with("hello\n"), "{page}");
    let live = greeter.page("greeter-admin", "/livez").await;
    assert!(live.starts_with("HTTP/1.1 200"), "{live}");
    let metrics = greeter.page("greeter-admin", "/metrics").await;
    assert!(metrics.contains("baetyl_greeter_hits_total 1"), "{metrics}");
    greeter.child.terminate();
    let status = greeter.child.wait(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{}", greeter.log());
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    let mut greeter = Greeter::start(&[
        ("BAETYL_GREETER__FAULT", "hang"),
        ("BAETYL_GREETER__PROCESS__DRAIN", "1h"),
    ]);
    greeter.is_ready().await;
    greeter.child.terminate();
    greeter.says("stopping; a second signal").await;
    assert!(greeter.child.is_running());
    greeter.child.terminate();
    let status = greeter.child.wait(PATIENCE).await;
    assert_eq!(status.code(), Some(128 + 15), "{}", greeter.log());
}

#[tokio::test]
async fn the_drain_deadline_ends_the_process_and_names_the_task() {
    let mut greeter = Greeter::start(&[
        ("BAETYL_GREETER__FAULT", "hang"),
        ("BAETYL_GREETER__PROCESS__DRAIN", "50ms"),
    ]);
    greeter.is_ready().await;
    greeter.child.terminate();
    let status = greeter.child.wait(PATIENCE).await;
    assert_eq!(status.code(), Some(1));
    greeter.says("greeter/stubborn").await;
}

#[tokio::test]
async fn a_required_task_that_panics_ends_the_process_and_says_why() {
    let mut greeter = Greeter::start(&[("BAETYL_GREETER__FAULT", "panic")]);
    let status = greeter.child.wait(PATIENCE).await;
    assert_eq!(status.code(), Some(1));
    greeter
        .says("required task fragile of greeter panicked: it broke")
        .await;
}

#[tokio::test]
async fn every_mistake_is_on_stderr_and_the_exit_code_says_do_not_try_again() {
    let dir = TestDir::new();
    let file = dir.write(
        "greeter.toml",
        "rest.listen = \"nowhere\"\ncolour = \"red\"\n",
    );
    for switch in [&["run"][..], &["run", "--check-config"]] {
        let output = greeter()
            .args(switch)
            .arg("--config")
            .arg(&file)
            .env("BAETYL_GREETER__LOG__FORMAT", "xml")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        let text = String::from_utf8(output.stderr).unwrap();
        for part in [
            "3 mistakes",
            "rest.listen",
            "colour: unknown key",
            "BAETYL_GREETER__LOG__FORMAT",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}

#[tokio::test]
async fn the_configuration_in_effect_is_printed() {
    let output = greeter()
        .args(["run", "--print-config"])
        .env("BAETYL_GREETER__PROCESS__DRAIN", "90s")
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for line in ["  drain: 1m30s", "  listen: 127.0.0.1:0", "  level: info"] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}

#[tokio::test]
async fn version_and_help_name_the_program() {
    for (arg, part) in [
        ("version", "baetyl-greeter 0."),
        ("--version", "baetyl-greeter 0."),
        ("--help", "Greets whoever asks"),
    ] {
        let output = greeter().arg(arg).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && text.contains(part),
            "{arg}: {text}"
        );
    }
    let script = greeter().args(["completion", "bash"]).output().unwrap();
    let script = String::from_utf8(script.stdout).unwrap();
    assert!(script.contains("--data-dir"));
}

#[tokio::test]
async fn json_log_lines_are_json() {
    let mut greeter = Greeter::start(&[("BAETYL_LOG_FORMAT", "json")]);
    greeter.is_ready().await;
    greeter.child.terminate();
    greeter.child.wait(PATIENCE).await;
    let log = greeter.log();
    let last = log.lines().last().unwrap();
    let event: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!(event["message"], "stopped");
}
