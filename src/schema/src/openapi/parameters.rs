//! The parameters of operations: their types, and which operation takes which.

/// A parameter in the query or the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) in_path: bool,
    pub(super) ty: &'static str,
    pub(super) description: &'static str,
}

const fn query(name: &'static str, ty: &'static str, description: &'static str) -> Parameter {
    Parameter {
        name,
        in_path: false,
        ty,
        description,
    }
}

const fn path(name: &'static str, description: &'static str) -> Parameter {
    Parameter {
        name,
        in_path: true,
        ty: "string",
        description,
    }
}

pub(super) const NAME: Parameter = path("name", "name of the object");
pub(super) const NAMESPACE: Parameter = path(
    "namespace",
    "object name and auth scope, such as for teams and projects",
);
pub(super) const PATH: Parameter = path("path", "path to the resource");
pub(super) const PRETTY: Parameter = query(
    "pretty",
    "string",
    "If 'true', then the output is indented. Off unless the client is a browser or curl.",
);

const DRY_RUN: Parameter = query(
    "dryRun",
    "string",
    "With the value 'All', everything is done but nothing is stored. No other value is valid.",
);
const FIELD_MANAGER: Parameter = query(
    "fieldManager",
    "string",
    "Name of the actor or entity that makes these changes: at most 128 printable characters. Required for apply.",
);
const FIELD_VALIDATION: Parameter = query(
    "fieldValidation",
    "string",
    "What becomes of unknown and duplicate fields: 'Ignore' drops them silently, 'Warn' (the default) with a warning \
     each, 'Strict' refuses the request.",
);
const FORCE: Parameter = query(
    "force",
    "boolean",
    "Apply takes fields over that other managers own, instead of failing with a conflict. For apply patches only.",
);
const CONTINUE: Parameter = query(
    "continue",
    "string",
    "The token of the chunk before, to go on where it ended. It expires; the answer is then 410 with a new token.",
);
const FIELD_SELECTOR: Parameter = query(
    "fieldSelector",
    "string",
    "Only objects whose fields are as said here.",
);
const LABEL_SELECTOR: Parameter = query(
    "labelSelector",
    "string",
    "Only objects whose labels are as said here.",
);
const LIMIT: Parameter = query(
    "limit",
    "integer",
    "The most objects to answer with; the rest comes with 'continue'.",
);
const RESOURCE_VERSION: Parameter = query(
    "resourceVersion",
    "string",
    "The resource version that the answer has to be from, or newer than.",
);
const RESOURCE_VERSION_MATCH: Parameter = query(
    "resourceVersionMatch",
    "string",
    "How 'resourceVersion' is meant: 'Exact' or 'NotOlderThan'.",
);
const SEND_INITIAL_EVENTS: Parameter = query(
    "sendInitialEvents",
    "boolean",
    "A watch begins with events for what exists, and a bookmark at their end. Needs 'resourceVersionMatch'.",
);
const SHARD_SELECTOR: Parameter =
    query("shardSelector", "string", "Only the objects of this shard.");
const TIMEOUT_SECONDS: Parameter = query(
    "timeoutSeconds",
    "integer",
    "Ends the list or watch after this time, whatever it is doing.",
);
const ALLOW_WATCH_BOOKMARKS: Parameter = query(
    "allowWatchBookmarks",
    "boolean",
    "A watch may have events of type BOOKMARK that only carry a resource version.",
);
const WATCH: Parameter = query(
    "watch",
    "boolean",
    "Changes as they happen, as a stream of events, instead of a list.",
);
const GRACE_PERIOD_SECONDS: Parameter = query(
    "gracePeriodSeconds",
    "integer",
    "Seconds until the object is deleted; 0 is at once. The default is that of the object's kind.",
);
const IGNORE_STORE_READ_ERROR: Parameter = query(
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "boolean",
    "Deletes an object that can no longer be read from the store, without looking at it. This can break the cluster.",
);
const ORPHAN_DEPENDENTS: Parameter = query(
    "orphanDependents",
    "boolean",
    "Deprecated in favour of 'propagationPolicy': whether dependents stay.",
);
const PROPAGATION_POLICY: Parameter = query(
    "propagationPolicy",
    "string",
    "What becomes of dependents: 'Orphan', 'Background' or 'Foreground'.",
);

pub(super) const LIST: &[Parameter] = &[
    PRETTY,
    ALLOW_WATCH_BOOKMARKS,
    CONTINUE,
    FIELD_SELECTOR,
    LABEL_SELECTOR,
    LIMIT,
    RESOURCE_VERSION,
    RESOURCE_VERSION_MATCH,
    SEND_INITIAL_EVENTS,
    SHARD_SELECTOR,
    TIMEOUT_SECONDS,
    WATCH,
];
pub(super) const READ: &[Parameter] = &[PRETTY];
pub(super) const WRITE: &[Parameter] = &[PRETTY, DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
pub(super) const PATCH: &[Parameter] = &[PRETTY, DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
pub(super) const DELETE: &[Parameter] = &[
    PRETTY,
    DRY_RUN,
    GRACE_PERIOD_SECONDS,
    IGNORE_STORE_READ_ERROR,
    ORPHAN_DEPENDENTS,
    PROPAGATION_POLICY,
];
pub(super) const DELETE_COLLECTION: &[Parameter] = &[
    PRETTY,
    CONTINUE,
    DRY_RUN,
    FIELD_SELECTOR,
    GRACE_PERIOD_SECONDS,
    IGNORE_STORE_READ_ERROR,
    LABEL_SELECTOR,
    LIMIT,
    ORPHAN_DEPENDENTS,
    PROPAGATION_POLICY,
    RESOURCE_VERSION,
    RESOURCE_VERSION_MATCH,
    SEND_INITIAL_EVENTS,
    SHARD_SELECTOR,
    TIMEOUT_SECONDS,
];
pub(super) const LOG: &[Parameter] = &[
    CONTAINER,
    query(
        "follow",
        "boolean",
        "Goes on with the log as it is written.",
    ),
    query(
        "insecureSkipTLSVerifyBackend",
        "boolean",
        "Does not verify the certificate of the kubelet, so the log may be another's.",
    ),
    query(
        "limitBytes",
        "integer",
        "The most bytes to answer with; the last line may be cut.",
    ),
    PRETTY,
    query(
        "previous",
        "boolean",
        "The log of the container's last run instead of the present one.",
    ),
    query(
        "sinceSeconds",
        "integer",
        "Only lines that are younger than this.",
    ),
    query(
        "stream",
        "string",
        "'All', 'Stdout' or 'Stderr'. 'tailLines' goes with 'All' only.",
    ),
    query("tailLines", "integer", "Only so many lines from the end."),
    query(
        "timestamps",
        "boolean",
        "Each line begins with the time at which it was written.",
    ),
];
const CONTAINER: Parameter = query(
    "container",
    "string",
    "Name of the container. Not needed if the pod has only one.",
);
const STREAMS: [Parameter; 4] = [
    query("stderr", "boolean", "Carries the standard error."),
    query("stdin", "boolean", "Carries the standard input."),
    query("stdout", "boolean", "Carries the standard output."),
    query("tty", "boolean", "Allocates a terminal."),
];

/// The parameters of a connection, by the kind of its options.
pub(super) fn connect(kind: &str) -> Vec<Parameter> {
    match kind {
        "PodExecOptions" => {
            let mut all = vec![
                query(
                    "command",
                    "string",
                    "The command and its arguments; there is no shell.",
                ),
                CONTAINER,
            ];
            all.extend(STREAMS);
            all
        }
        "PodAttachOptions" => {
            let mut all = vec![CONTAINER];
            all.extend(STREAMS);
            all
        }
        "PodPortForwardOptions" => vec![query("ports", "integer", "The ports to forward.")],
        _ => vec![query(
            "path",
            "string",
            "The part of the URL that goes to what is proxied.",
        )],
    }
}
