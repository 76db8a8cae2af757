//! Container identity from the path of a cgroup. Knows how runtimes name cgroups, nothing else: no files, no sockets.
//!
//! The innermost component that names a container wins, so that a cluster inside a container (kind, minikube) is seen
//! as its own containers, and a cgroup that a container made for itself still belongs to it.

use haechi_signatures::model::Container;

/// Names that runtimes give to the cgroup of a container: `PREFIX<64 hex digits>`, with or without `.scope`.
const PREFIXES: &[(&str, &str)] = &[
    ("cri-containerd-", "containerd"),
    ("nerdctl-", "containerd"),
    ("docker-", "docker"),
    ("crio-", "crio"),
    ("libpod-", "podman"),
];

/// Runtimes as they appear between colons, where a cgroupfs driver met a path meant for systemd.
const COLON_NAMES: &[(&str, &str)] =
    &[("cri-containerd", "containerd"), ("docker", "docker"), ("crio", "crio"), ("libpod", "podman")];

/// Namespaces of containerd that its own tools use; below them an id may be any word.
const CONTAINERD_NAMESPACES: &[&str] = &["default", "k8s.io", "moby", "buildkit"];

/// The container that a cgroup belongs to, by its path from the root of the hierarchy.
#[must_use]
pub fn from_cgroup_path(path: &str) -> Option<Container> {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    (0..parts.len()).rev().find_map(|i| {
        let (id, runtime) = name(parts[i]).or_else(|| plain(&parts[..=i]))?;
        let pod_uid = parts[..=i].iter().rev().take(2).find_map(|p| pod_uid(p));
        Some(Container { id: id.to_owned(), runtime, pod_uid })
    })
}

/// An id with its runtime's name around it.
fn name(part: &str) -> Option<(&str, &'static str)> {
    if let Some((head, id)) = part.rsplit_once(':') {
        let runtime = head.rsplit(':').next()?;
        let found = COLON_NAMES.iter().find(|n| n.0 == runtime)?;
        return is_id(id).then_some((id, found.1));
    }
    let bare = part.strip_suffix(".scope").unwrap_or(part);
    PREFIXES.iter().find_map(|(prefix, runtime)| {
        let id = bare.strip_prefix(prefix)?;
        is_id(id).then_some((id, *runtime))
    })
}

/// An id alone: what it stands under says whose it is.
fn plain<'a>(parts: &[&'a str]) -> Option<(&'a str, &'static str)> {
    let (id, above) = parts.split_last()?;
    if let [namespace] = above
        && CONTAINERD_NAMESPACES.contains(namespace)
    {
        return Some((id, "containerd"));
    }
    if !is_id(id) {
        return None;
    }
    let runtime = match above.last() {
        Some(pod) if pod_uid(pod).is_some() => "cri",
        Some(&"libpod_parent") => "podman",
        Some(_) => "docker", // its own parent, or one given by --cgroup-parent
        None => return None,
    };
    Some((id, runtime))
}

/// The pod that a cgroup stands for: `pod<uid>`, or `…kubepods-…pod<uid>.slice` with underscores for dashes.
fn pod_uid(part: &str) -> Option<String> {
    let uid = match part.split_once(".slice") {
        Some((slice, _)) if slice.contains("kubepods") => &slice[slice.rfind("-pod")? + 4..],
        Some(_) => return None,
        None => part.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    let digits = uid.bytes().filter(u8::is_ascii_hexdigit).count();
    (digits == 32 && uid.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())).then_some(uid)
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "5ee74e9a1f5fb2cb14f3a87a2a4d1ab2f10b4d2b1ed29f5be1b3e8f9d4d2c0aa";
    const NODE: &str = "00f3a87a2a4d1ab2f10b4d2b1ed29f5be1b3e8f9d4d2c0aa5ee74e9a1f5fb2cb";
    const UID: &str = "1b2c3d4e-5f60-4718-8a9b-0c1d2e3f4a5b";

    /// Paths as seen on real hosts; `@` stands for the id, `#` for a node's id, `%` and `_` for the pod uid.
    const SAMPLES: &[(&str, Option<(&str, bool)>)] = &[
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod_.slice/cri-containerd-@.scope",
            Some(("containerd", true)),
        ),
        ("/kubepods.slice/kubepods-pod_.slice/crio-@.scope", Some(("crio", true))),
        ("/kubepods.slice/kubepods-pod_.slice/crio-@.scope/container", Some(("crio", true))),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod_.slice/docker-@.scope",
            Some(("docker", true)),
        ),
        ("/system.slice/docker-@.scope", Some(("docker", false))),
        ("/system.slice/docker-@.scope/init.scope", Some(("docker", false))),
        ("/system.slice/nerdctl-@.scope", Some(("containerd", false))),
        ("/machine.slice/libpod-@.scope/container", Some(("podman", false))),
        ("/user.slice/user-1000.slice/user~1000.service/user.slice/libpod-@.scope", Some(("podman", false))),
        ("/machine.slice/machine-libpod_pod_#.slice/libpod-@.scope", Some(("podman", false))),
        ("/libpod_parent/libpod-@", Some(("podman", false))),
        ("/libpod_parent/#/libpod-@", Some(("podman", false))),
        ("/docker/@", Some(("docker", false))),
        ("/actions_job/@", Some(("docker", false))),
        ("/ecs/prod/7f1c/@", Some(("docker", false))),
        ("/kubepods/besteffort/pod%/@", Some(("cri", true))),
        ("/kubepods/pod%/@", Some(("cri", true))),
        ("/kubepods/burstable/pod%/crio-@", Some(("crio", true))),
        (
            "/system.slice/containerd.service/kubepods-besteffort-pod_.slice:cri-containerd:@",
            Some(("containerd", true)),
        ),
        ("/k8s.io/@", Some(("containerd", false))),
        ("/docker/#/kubelet/kubepods/besteffort/pod%/@", Some(("cri", true))),
        (
            "/docker/#/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod_.slice/cri-containerd-@.scope",
            Some(("containerd", true)),
        ),
        ("/", None),
        ("", None),
        ("/init.scope", None),
        ("/system.slice/docker.service", None),
        ("/user.slice/user-1000.slice/session-2.scope", None),
        ("/machine.slice/libpod-conmon-@.scope", None),
        ("/kubepods.slice/kubepods-pod_.slice", None),
        ("/kubepods.slice/kubepods-pod_.slice/crio-conmon-@.scope", None),
        ("/process_api/b83c97bbcb5bc9b16be692c0ad044280", None),
        ("/@", None),
    ];

    #[test]
    fn real_paths_give_the_container_they_belong_to() {
        for (sample, want) in SAMPLES {
            let path = sample
                .replace('@', ID)
                .replace('#', NODE)
                .replace('%', UID)
                .replace("-pod_.", &format!("-pod{}.", UID.replace('-', "_")))
                .replace('~', "@");
            let got = from_cgroup_path(&path);
            let want = want.map(|(runtime, in_pod)| Container {
                id: ID.into(),
                runtime,
                pod_uid: in_pod.then(|| UID.to_owned()),
            });
            assert_eq!(got, want, "{sample}");
        }
    }

    #[test]
    fn processes_of_a_node_in_a_container_belong_to_the_node() {
        let got = from_cgroup_path(&format!("/docker/{NODE}/system.slice/containerd.service"));
        assert_eq!(got.map(|c| (c.id, c.runtime)), Some((NODE.into(), "docker")));
    }

    #[test]
    fn ids_that_are_words_and_pods_of_static_manifests_are_known() {
        let named = from_cgroup_path("/default/web-1").map(|c| (c.id, c.runtime));
        assert_eq!(named, Some(("web-1".into(), "containerd")));
        let mirror = UID.replace('-', "");
        let got = from_cgroup_path(&format!("/kubepods/burstable/pod{mirror}/{ID}"));
        assert_eq!(got.and_then(|c| c.pod_uid), Some(mirror));
    }
}
