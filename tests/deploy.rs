//! Does what deploys the relay fit the relay, and itself? Container, compose file, Kubernetes manifests and systemd units, read as
//! their readers read them.
//!
//! Real programs judge them elsewhere: systemd in `tests/e2e/systemd.rs`, a docker engine in `tests/e2e/docker.sh`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use relay::config::{self, Config, Env};
use serde_json::{Value, json};

/// What sessions get to say goodbye in, behind `shutdown_timeout`: `GOODBYE` in `src/app/drain.rs`.
const GOODBYE: Duration = Duration::from_secs(8);

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// All documents of a YAML file.
fn documents(path: impl AsRef<Path>) -> Vec<Value> {
    let text = read(&path);
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

fn kubernetes() -> PathBuf {
    project("deploy/kubernetes")
}

/// The manifest of this kind in the base; the first of several.
fn manifest(kind: &str) -> Value {
    manifests().into_iter().find(|manifest| manifest["kind"] == kind).unwrap_or_else(|| panic!("there is no {kind}"))
}

/// Every manifest of base and components.
fn manifests() -> Vec<Value> {
    let directories = ["base", "components/monitoring", "components/autoscaling"];
    let resources = directories.iter().flat_map(|directory| {
        let directory = kubernetes().join(directory);
        let kustomization = documents(directory.join("kustomization.yaml")).remove(0);
        list(&kustomization["resources"]).into_iter().map(move |file| directory.join(file.as_str().expect("a file")))
    });
    resources.flat_map(documents).collect()
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// A configuration that names files of another machine.
fn configuration(path: &str) -> Config {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let tokens = dir.path().join("tokens");
    fs::write(&tokens, "some-token\n").expect("a file can be written");
    let text = read(project(path)).replace("/run/secrets/relay/tokens", tokens.to_str().expect("a path of letters"));
    let loaded =
        config::parse(&text, &Env::empty(), &relay::app::judge_upstream).unwrap_or_else(|problems| panic!("{path}: {problems}"));
    assert!(loaded.warnings.is_empty(), "{path}: {:?}", loaded.warnings);
    assert!(!loaded.config.security.auth_tokens.is_empty(), "{path}: the tokens are read");
    loaded.config
}

/// The configuration without any key but the one that must be there.
fn defaults() -> Config {
    let text = r#"{ "upstream": "rtmp://origin.example.com" }"#;
    config::parse(text, &Env::empty(), &relay::app::judge_upstream).expect("it is enough").config
}

fn seconds(value: &Value) -> Duration {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Duration::from_secs(text.trim_end_matches('s').parse().unwrap_or_else(|_| panic!("{text} are no seconds")))
}

#[test]
fn every_kustomization_names_what_is_there_and_all_of_it() {
    for directory in ["base", "components/monitoring", "components/autoscaling", "example"] {
        let directory = kubernetes().join(directory);
        let kustomization = documents(directory.join("kustomization.yaml")).remove(0);
        let generators = ["configMapGenerator", "secretGenerator"].iter().flat_map(|key| list(&kustomization[key]));
        let generated: Vec<Value> = generators.flat_map(|generator| list(&generator["files"])).collect();
        let named = [list(&kustomization["resources"]), list(&kustomization["components"]), generated].concat();
        let named: Vec<String> =
            named.iter().filter_map(Value::as_str).map(|file| file.rsplit('=').next().unwrap_or(file).to_owned()).collect();
        assert!(!named.is_empty());
        named.iter().for_each(|file| assert!(directory.join(file).exists(), "{}: {file}", directory.display()));
        for entry in fs::read_dir(&directory).expect("it can be listed") {
            let name = entry.expect("it can be listed").file_name().into_string().expect("letters");
            assert!(name == "kustomization.yaml" || named.contains(&name), "{}: {name} is named by nobody", directory.display());
        }
    }
}

#[test]
fn the_pod_may_do_little_is_asked_how_it_is_and_gets_the_time_that_a_drain_takes() {
    let deployment = manifest("Deployment");
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(pod["enableServiceLinks"], false);
    assert_eq!((&pod["securityContext"]["runAsNonRoot"], &pod["securityContext"]["runAsUser"]), (&json!(true), &json!(1000)));
    let wanted =
        json!({ "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] } });
    assert_eq!(container["securityContext"], wanted);

    let paths = read(project("src/http.rs"));
    for (probe, path) in [("readinessProbe", "/ready"), ("livenessProbe", "/livez")] {
        assert_eq!(container[probe]["httpGet"], json!({ "path": path, "port": "http" }), "{probe}");
        assert!(paths.contains(&format!("\"{path}\"")));
    }
    let stop = list(&container["lifecycle"]["preStop"]["exec"]["command"]);
    assert_eq!(stop[..2], [json!("busybox"), json!("sleep")]);
    let takes = seconds(&stop[2]) + configuration("deploy/kubernetes/base/config.json").timeouts.shutdown + GOODBYE;
    let grace = seconds(&pod["terminationGracePeriodSeconds"]);
    assert!(grace > takes, "{takes:?} for preStop, drain and goodbyes, but only {grace:?} until SIGKILL");
    assert!(read(project("src/app/drain.rs")).contains("GOODBYE: Duration = Duration::from_secs(8);"));
    // Without a surge there is a moment with fewer relays, and their streams with nowhere to go.
    assert_eq!(deployment["spec"]["strategy"]["rollingUpdate"], json!({ "maxSurge": 1, "maxUnavailable": 0 }));
    assert!(container["resources"]["limits"].get("cpu").is_none(), "throttling stalls streams");
}

#[test]
fn ports_files_and_secrets_are_where_the_relay_looks_for_them() {
    let deployment = manifest("Deployment");
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let config = configuration("deploy/kubernetes/base/config.json");
    let ports = json!([
        { "name": "rtmp", "containerPort": config.listen.port },
        { "name": "http", "containerPort": config.http.expect("HTTP is on").port },
    ]);
    assert_eq!(container["ports"], ports);
    let at = |name: &str| {
        let mounts = list(&container["volumeMounts"]);
        mounts.iter().find(|mount| mount["name"] == name).map(|mount| mount["mountPath"].as_str().expect("a path").to_owned())
    };
    let docker = read(project("Dockerfile"));
    let workdir = docker.lines().filter_map(|line| line.strip_prefix("WORKDIR ")).next_back();
    assert_eq!(at("config").as_deref(), workdir, "the working directory, where config.json is looked for");
    let text = read(kubernetes().join("base/config.json"));
    assert!(text.contains(&format!("\"auth_tokens_file\": \"{}/tokens\"", at("secrets").expect("they are mounted"))));
    let kustomization = documents(kubernetes().join("base/kustomization.yaml")).remove(0);
    assert_eq!(kustomization["secretGenerator"][0]["files"], json!(["tokens=tokens.example"]));
    assert_eq!(kustomization["configMapGenerator"][0]["files"], json!(["config.json"]));
    configuration("deploy/kubernetes/example/config.json");
}

#[test]
fn every_selector_finds_the_pods_and_the_scrape_finds_its_service() {
    let template = manifest("Deployment")["spec"]["template"]["metadata"]["labels"].clone();
    assert!(template.as_object().is_some_and(|labels| !labels.is_empty()));
    let all = manifests();
    let of = |kind: &str| all.iter().filter(move |manifest| manifest["kind"] == kind).collect::<Vec<_>>();
    assert_eq!(of("Service").len(), 2);
    for service in of("Service") {
        assert_eq!(service["spec"]["selector"], template, "{}", service["metadata"]["name"]);
    }
    for (kind, at) in [
        ("Deployment", "/spec/selector/matchLabels"),
        ("PodDisruptionBudget", "/spec/selector/matchLabels"),
        ("NetworkPolicy", "/spec/podSelector/matchLabels"),
    ] {
        assert_eq!(of(kind)[0].pointer(at), Some(&template), "{kind}");
    }
    // The labels that kustomize adds to all.
    let added = documents(kubernetes().join("base/kustomization.yaml")).remove(0)["labels"][0]["pairs"].clone();
    let monitor = of("ServiceMonitor")[0];
    let wanted = monitor["spec"]["selector"]["matchLabels"].as_object().cloned().expect("labels");
    let found = of("Service").into_iter().filter(|service| {
        wanted.iter().all(|(key, value)| added.get(key) == Some(value) || service["metadata"]["labels"].get(key) == Some(value))
    });
    let names: Vec<&str> = found.filter_map(|service| service["metadata"]["name"].as_str()).collect();
    assert_eq!(names, ["relay-http"]);
    let job = monitor["spec"]["jobLabel"].as_str().expect("a label");
    assert_eq!(added[job], "relay", "the alerts go by the job's name");
    assert_eq!(of("Service")[0]["spec"]["externalTrafficPolicy"], "Local", "clients keep their addresses");
}

#[test]
fn the_autoscaler_goes_by_a_metric_that_there_is_and_takes_its_time_downwards() {
    let scaler = manifest("HorizontalPodAutoscaler");
    let metric = scaler["spec"]["metrics"][0]["pods"]["metric"]["name"].as_str().expect("a name");
    assert!(read(project("docs/METRICS.md")).contains(&format!("| `{metric}` | gauge |")), "{metric}");
    let most = configuration("deploy/kubernetes/base/config.json").connection_limit.max_total_connections;
    let target: u32 =
        scaler["spec"]["metrics"][0]["pods"]["target"]["averageValue"].as_str().and_then(|n| n.parse().ok()).expect("a number");
    assert!(target * 2 <= most, "when one of two goes, the other has room for all");
    assert_eq!(scaler["spec"]["scaleTargetRef"]["name"], manifest("Deployment")["metadata"]["name"]);
    assert!(scaler["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"].as_u64() >= Some(600));
}

/// kustomize's own judgement, where it is.
#[test]
fn kustomize_builds_base_and_example() {
    if Command::new("kubectl").arg("version").arg("--client").output().is_err() {
        println!("kubectl is not here");
        return;
    }
    for (directory, kinds) in [("base", 8), ("example", 10)] {
        let built = Command::new("kubectl").arg("kustomize").arg(kubernetes().join(directory)).output().expect("it starts");
        assert!(built.status.success(), "{directory}: {}", String::from_utf8_lossy(&built.stderr));
        let built: Vec<Value> = serde_saphyr::from_multiple(&String::from_utf8_lossy(&built.stdout)).expect("YAML");
        assert_eq!(built.len(), kinds, "{directory}");
        let deployment = built.iter().find(|manifest| manifest["kind"] == "Deployment").expect("a deployment");
        let image = deployment["spec"]["template"]["spec"]["containers"][0]["image"].as_str().expect("an image");
        assert!(image.ends_with(concat!("/relay:", env!("CARGO_PKG_VERSION"))), "{image}");
        assert_eq!(deployment["spec"].get("replicas").is_some(), directory == "base", "the autoscaler's number is its own");
    }
}

#[test]
fn the_compose_file_gives_the_relay_what_it_needs_and_no_more() {
    let compose = documents(project("docker-compose.yml")).remove(0);
    let services = compose["services"].as_object().expect("services");
    let relay = &services["relay"];
    let subnet = compose["networks"]["default"]["ipam"]["config"][0]["subnet"].as_str().expect("a subnet");
    let allowed = relay["environment"]["SECURITY_UPSTREAM_ALLOWED_NETWORKS"].as_str().expect("networks");
    assert!(allowed.contains(subnet) && !allowed.contains("0.0.0.0/0"), "{allowed}: of {subnet}");
    assert_eq!((&relay["read_only"], &relay["cap_drop"]), (&json!(true), &json!(["ALL"])));
    assert_eq!(relay["ulimits"]["nofile"]["hard"], "${RELAY_NOFILE:-65536}");
    let grace = seconds(&relay["stop_grace_period"]);
    assert!(grace > defaults().timeouts.shutdown + GOODBYE, "{grace:?}");
    for (name, service) in services {
        let ports = list(&service["ports"]);
        let open = ports.iter().filter_map(Value::as_str).filter(|port| !port.starts_with("127.0.0.1:"));
        assert_eq!(open.collect::<Vec<_>>(), if name == "relay" { vec!["${RELAY_PORT:-1935}:1935"] } else { vec![] }, "{name}");
        for mount in list(&service["volumes"]).iter().filter_map(Value::as_str).filter(|mount| mount.starts_with("./")) {
            let from = mount.split(':').next().expect("a path");
            assert!(project(from).exists(), "{name} mounts {from}");
            assert!(mount.ends_with(":ro"), "{name}: {mount}");
        }
    }
    let demo: Vec<&String> =
        services.iter().filter(|(_, service)| service["profiles"] == json!(["demo"])).map(|(name, _)| name).collect();
    assert_eq!(demo, ["origin", "publisher"]);
    let scraped = documents(project("prometheus/prometheus.yml")).remove(0)["scrape_configs"][0].clone();
    assert_eq!(scraped["static_configs"][0]["targets"], json!(["relay:8080"]));
    let url = services["grafana"]["environment"]["PROMETHEUS_URL"].as_str();
    assert_eq!(url, Some("http://prometheus:9090"));
    assert!(read(project("grafana/provisioning/datasources/prometheus.yml")).contains("url: ${PROMETHEUS_URL}"));
}

#[test]
fn the_image_runs_as_nobody_in_particular_and_says_how_it_is() {
    let docker = read(project("Dockerfile"));
    let last = docker.rsplit("\nFROM ").next().expect("a stage");
    let config = defaults();
    for line in [
        "USER 1000:1000".to_owned(),
        "STOPSIGNAL SIGTERM".to_owned(),
        "ENTRYPOINT [\"relay\"]".to_owned(),
        format!("EXPOSE {} {}", config.listen.port, config.http.expect("HTTP is on").port),
        format!("ARG VERSION={}", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(last.lines().any(|given| given == line), "{line}");
    }
    assert!(last.contains("CMD [\"relay\", \"health\"]") && last.contains("org.opencontainers.image.version"));
    let version = |text: &str| text.split('.').map(|n| n.parse().unwrap_or(0)).collect::<Vec<u32>>();
    let rust = docker.lines().find_map(|line| line.strip_prefix("ARG RUST_VERSION=")).expect("a version of Rust");
    assert!(version(rust) >= version(env!("CARGO_PKG_RUST_VERSION")));
    // Whatever the build needs is let into it.
    let let_in = read(project(".dockerignore"));
    for path in docker.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|copy| !copy.starts_with("--from")) {
        for source in path.split(' ').rev().skip(1) {
            assert!(let_in.lines().any(|line| line.strip_prefix('!') == Some(source)), "{source} is kept out by .dockerignore");
        }
    }
}

#[test]
fn the_unit_does_not_restart_what_a_restart_cannot_cure_and_waits_for_a_drain() {
    let unit = read(project("deploy/systemd/relay.service"));
    let value = |key: &str| {
        let mut lines = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        lines.next_back().unwrap_or_else(|| panic!("{key} is not set")).to_owned()
    };
    assert_eq!((value("Type"), value("NotifyAccess"), value("Restart")), ("notify".into(), "all".into(), "on-failure".into()));
    assert_eq!((value("RestartPreventExitStatus"), value("StartLimitIntervalSec")), ("64 78".into(), "0".into()));
    let patience = seconds(&json!(value("TimeoutStopSec")));
    assert!(patience > defaults().timeouts.shutdown + GOODBYE, "{patience:?}");
    assert!(read(project("deploy/systemd/relay.sysusers.conf")).starts_with(&format!("u {} ", value("User"))));
    let sockets = read(project("deploy/systemd/relay.socket"));
    let listened: Vec<String> =
        sockets.lines().filter_map(|line| line.strip_prefix("ListenStream=")).map(str::to_owned).collect();
    let config = defaults();
    assert_eq!(listened, [config.listen.port.to_string(), config.http.expect("HTTP is on").port.to_string()]);
}
