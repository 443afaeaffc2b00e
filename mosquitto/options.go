package mosquitto

import "maps"

// option is what becomes of a setting: fixed, or decided by set.
type option struct {
	verdict Verdict
	why     string
	set     func(p *confParser, value string) (Verdict, string)
	bridge  bool // it belongs to a connection
}

func fixed(v Verdict, why string) option { return option{verdict: v, why: why} }

func by(set func(p *confParser, value string) (Verdict, string)) option { return option{set: set} }

// options are the settings of mosquitto.conf(5) of 2.0.11, and those of other
// versions that files in use have.
var options = func() map[string]option {
	all := map[string]option{}
	for _, part := range []map[string]option{identityOptions, stateOptions, limitOptions, logOptions, listenerOptions, tlsOptions, bridgeOptions} {
		maps.Copy(all, part)
	}
	return all
}()

// identityOptions are about who may connect and do what.
var identityOptions = map[string]option{
	"per_listener_settings":      by((*confParser).perListener),
	"allow_anonymous":            by((*confParser).allowAnonymous),
	"password_file":              by((*confParser).passwordFile),
	"acl_file":                   by((*confParser).aclFile),
	"psk_file":                   by((*confParser).pskFile),
	"plugin":                     by((*confParser).plugin),
	"auth_plugin":                by((*confParser).plugin),
	"global_plugin":              by((*confParser).plugin),
	"plugin_load":                fixed(NotSupported, "modules of mosquitto cannot be loaded: name the file of dynamic security with plugin and plugin_opt_config_file, and import again"),
	"plugin_use":                 fixed(NotSupported, "modules of mosquitto cannot be loaded: name the file of dynamic security with plugin and plugin_opt_config_file, and import again"),
	"allow_zero_length_clientid": by((*confParser).allowEmptyClientID),
	"auto_id_prefix":             fixed(NotNeeded, "ids for clients that send none are made here, with a prefix of their own"),
	"clientid_prefixes":          fixed(NotSupported, "client ids are bound by rights and not by prefixes: write rules with %c, such as allow both sensors/%c/#"),
	"auth_plugin_deny_special_chars": fixed(NotNeeded,
		"a user name or client id with /, + or # never stands for %u or %c in a rule"),
	"check_retain_source":      fixed(NotNeeded, "rights are asked when a message is published and at every delivery, of retained ones too"),
	"use_username_as_clientid": by((*confParser).usernameAsClientID),
}

// stateOptions are about what is kept, and how the process runs.
var stateOptions = map[string]option{
	"persistence":              by((*confParser).persistence),
	"persistence_file":         by((*confParser).persistenceFile),
	"persistence_location":     by((*confParser).persistenceLocation),
	"autosave_interval":        fixed(NotNeeded, "what is acknowledged is on the disks of a majority of the nodes already"),
	"autosave_on_changes":      fixed(NotNeeded, "what is acknowledged is on the disks of a majority of the nodes already"),
	"retain_available":         by((*confParser).retainAvailable),
	"retain_expiry_interval":   fixed(NotSupported, "retained messages live until they are replaced or cleared: let publishers set a message expiry"),
	"allow_duplicate_messages": fixed(NotNeeded, "a client with subscriptions that overlap gets each message once"),
	"upgrade_outgoing_qos":     by((*confParser).upgradeQoS),
	"queue_qos0_messages":      by((*confParser).queueQoS0),
	"sys_interval":             fixed(NotNeeded, "$SYS is published at its own pace, and /metrics has more"),
	"user":                     fixed(NotNeeded, "the service runs as the user of its systemd unit"),
	"pid_file":                 fixed(NotNeeded, "systemd knows the process"),
	"set_tcp_nodelay":          fixed(NotNeeded, "it is always on"),
	"retry_interval":           fixed(NotNeeded, "unacknowledged messages are sent again when the client reconnects, as MQTT says"),
	"store_clean_interval":     fixed(NotNeeded, "messages that nobody waits for are removed all the time"),
	"enable_control_api":       fixed(NotNeeded, "a cluster is managed with mqcluster on the machine of a node"),
	"include_dir":              {}, // read by include
}

// limitOptions bound clients.
var limitOptions = map[string]option{
	"max_inflight_messages":        by((*confParser).maxInflight),
	"max_inflight_bytes":           by((*confParser).maxInflightBytes),
	"max_keepalive":                by((*confParser).maxKeepAlive),
	"max_packet_size":              by((*confParser).maxPacketSize),
	"message_size_limit":           by((*confParser).messageSizeLimit),
	"max_queued_bytes":             by((*confParser).maxQueuedBytes),
	"max_queued_messages":          by((*confParser).maxQueuedMessages),
	"memory_limit":                 fixed(NotNeeded, "a node refuses new clients near the memory that it finds or that limits.memory sets"),
	"persistent_client_expiration": by((*confParser).persistentExpiration),
	"max_connections":              by((*confParser).maxConnections),
	"global_max_connections":       fixed(NotSupported, "set limits.max_connections of each node"),
	"global_max_clients":           fixed(NotSupported, "sessions are bounded by their expiry: set limits.persistent_client_expiration"),
	"max_qos":                      by((*confParser).maxQoS),
	"max_topic_alias":              fixed(NotNeeded, "limits.topic_alias_maximum is for all listeners, and each connection is told it"),
	"max_topic_alias_broker":       fixed(NotNeeded, "topic aliases towards clients are chosen as far as each client allows"),
	"packet_buffer_size":           fixed(NotNeeded, "buffers are sized by what comes"),
	"accept_protocol_versions":     fixed(NotSupported, "MQTT 3.1, 3.1.1 and 5 are accepted on every listener: nothing to do unless one is to be refused"),
}

// logOptions are about logging.
var logOptions = map[string]option{
	"log_dest":             by((*confParser).logDest),
	"log_facility":         fixed(NotNeeded, "log.output syslog uses the facility daemon, and journald needs none"),
	"log_timestamp":        fixed(NotNeeded, "every line has its time"),
	"log_timestamp_format": fixed(NotNeeded, "every line has its time, in RFC 3339"),
	"log_type":             by((*confParser).logType),
	"connection_messages":  fixed(NotNeeded, "connections are counted by /metrics and logged at level debug"),
	"websockets_log_level": fixed(NotNeeded, "listeners of all kinds log alike"),
}

// listenerOptions are about ports.
var listenerOptions = map[string]option{
	"listener":                by((*confParser).listener),
	"port":                    by((*confParser).port),
	"bind_address":            by((*confParser).bindAddress),
	"bind_interface":          by((*confParser).bindInterface),
	"socket_domain":           by((*confParser).socketDomain),
	"protocol":                by((*confParser).protocol),
	"http_dir":                fixed(NotSupported, "no files are served: put a web server before or beside the WebSocket port"),
	"mount_point":             fixed(NotSupported, "topics are not rewritten: give the clients of this listener a topic prefix of their own and rights to it alone"),
	"websockets_headers_size": fixed(NotNeeded, "the size of HTTP headers is bounded"),
	"websockets_origin":       fixed(NotSupported, "set allowed_origins of the listener"),
	"enable_proxy_protocol":   fixed(NotSupported, "set proxy_from of the listener to the addresses of the balancer"),
	"disable_client_cert_date_checks": fixed(NotSupported,
		"an expired certificate is refused: issue new ones with mqcluster cert issue"),
}

// tlsOptions are about certificates.
var tlsOptions = map[string]option{
	"cafile":                   by((*confParser).caFile),
	"capath":                   fixed(NotSupported, "a directory of CAs is not read: put them into one file, cat DIR/*.pem > clients-ca.pem, as tls.client_ca_file"),
	"certfile":                 by((*confParser).certFile),
	"keyfile":                  by((*confParser).keyFile),
	"crlfile":                  by((*confParser).crlFile),
	"dhparamfile":              fixed(NotNeeded, "keys are exchanged by elliptic curves, which need no parameters"),
	"ciphers":                  by((*confParser).ciphers),
	"ciphers_tls1.3":           fixed(NotNeeded, "the cipher suites of TLS 1.3 are all strong and always on"),
	"tls_version":              by((*confParser).tlsVersion),
	"require_certificate":      by((*confParser).requireCertificate),
	"use_identity_as_username": by((*confParser).identityAsUser),
	"use_subject_as_username":  by((*confParser).subjectAsUser),
	"psk_hint":                 by((*confParser).pskHint),
	"tls_engine":               by((*confParser).engine),
	"tls_engine_kpass_sha1":    by((*confParser).engine),
	"tls_keyform":              by((*confParser).keyForm),
}

// bridgeOptions belong to a connection. There are no bridges here: the report says
// of each what it did, so that it can run elsewhere.
var bridgeOptions = func() map[string]option {
	all := map[string]option{
		"connection": by((*confParser).connection),
		"address":    by((*confParser).bridgeAddress),
		"addresses":  by((*confParser).bridgeAddress),
		"topic":      by((*confParser).bridgeTopic),
	}
	for _, name := range []string{
		"bridge_alpn", "bridge_attempt_unsubscribe", "bridge_bind_address", "bridge_cafile", "bridge_capath",
		"bridge_certfile", "bridge_ciphers", "bridge_ciphers_tls1.3", "bridge_identity", "bridge_insecure",
		"bridge_keyfile", "bridge_max_packet_size", "bridge_max_topic_alias", "bridge_outgoing_retain",
		"bridge_protocol_version", "bridge_psk", "bridge_receive_maximum", "bridge_reload_type",
		"bridge_require_ocsp", "bridge_session_expiry_interval", "bridge_tcp_keepalive", "bridge_tcp_user_timeout",
		"bridge_tls_use_os_certs", "bridge_tls_version", "cleansession", "clientid", "idle_timeout",
		"keepalive_interval", "local_cleansession", "local_clientid", "local_password", "local_username",
		"notification_topic", "notifications", "notifications_local_only", "password", "remote_clientid",
		"remote_password", "remote_username", "restart_timeout", "round_robin", "start_type", "threshold",
		"try_private", "username",
	} {
		all[name] = option{verdict: NotSupported, why: "there are no bridges here: keep the bridge in a mosquitto of its own that connects to this cluster as a client", bridge: true}
	}
	return all
}()
