#!/usr/bin/env bash
# usage: mqcluster-aws VERB
#
# What a machine does to be a node, and what a node does in AWS. Settings come from
# /etc/mqcluster/aws.env; no secret is among them, nor in the arguments of a process.
#
#   boot     package, volume, membership, service; at every start of the machine
#   tick     numbers for the alarms; on the leader join token, CA and members
#   backup   on the leader: a backup for the bucket
set -euo pipefail

# shellcheck source=/dev/null
. /etc/mqcluster/aws.env

umask 077
imds=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}
disk=/var/lib/mqcluster-disk
data=/var/lib/mqcluster
config=/etc/mqcluster/mqcluster.yaml

# A token is good for a day and renewed four times in it: one that is read is good
# for as long as a join may take.
token_life=24h
token_uses=20
token_age=$((6 * 3600))

say() { echo "mqcluster-aws: $*" >&2; }

fail() {
  say "$@"
  exit 1
}

# metadata PATH prints what the machine is told about itself.
metadata() {
  local session
  session=$(curl -sSf -m 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$imds/latest/api/token") &&
    curl -sSf -m 5 -K - "$imds/latest/meta-data/$1" <<<"header = \"X-aws-ec2-metadata-token: $session\""
}

# field NAME prints a field of text of the JSON on standard input.
field() { tr -d '\n' | sed -n 's/.*"'"$1"'" *: *"\([^"]*\)".*/\1/p'; }

# credentials prints curl's configuration: a secret is in no argument.
credentials() {
  local role all
  role=$(metadata iam/security-credentials/) && all=$(metadata "iam/security-credentials/$role") || return
  printf 'user = "%s:%s"\nheader = "X-Amz-Security-Token: %s"\n' \
    "$(field AccessKeyId <<<"$all")" "$(field SecretAccessKey <<<"$all")" "$(field Token <<<"$all")"
}

# call SERVICE PATH OPTION... asks AWS; options are curl's, the body its input.
call() {
  local service=$1 path=$2 secrets
  shift 2
  secrets=$(credentials) || return
  curl -sS --fail-with-body --retry 3 -m 900 -K <(printf '%s\n' "$secrets") --aws-sigv4 "aws:amz:$REGION:$service" \
    "$@" "${AWS_ENDPOINT_URL:-https://$service.$REGION.$DOMAIN}$path"
}

parameter_store() {
  call ssm / -H 'Content-Type: application/x-amz-json-1.1' -H "X-Amz-Target: AmazonSSM.$1" --data-binary @-
}

# get NAME prints what the parameter store says of a parameter.
get() { parameter_store GetParameter <<<"{\"Name\":\"$PARAMETERS/$1\",\"WithDecryption\":true}"; }

# put NAME TYPE VALUE writes one.
put() {
  local key=
  [ "$2" != SecureString ] || [ -z "$KMS_KEY" ] || key=",\"KeyId\":\"$KMS_KEY\""
  parameter_store PutParameter >/dev/null <<<"{\"Name\":\"$PARAMETERS/$1\",\"Type\":\"$2\",\"Overwrite\":true$key,\"Value\":\"$3\"}"
}

# numbers NAME=VALUE... puts numbers of the cluster; NAME@=VALUE are of this node.
numbers() {
  local -a form=(-d Action=PutMetricData -d Version=2010-08-01 -d Namespace=mqcluster)
  local i=0 number name at
  for number in "$@"; do
    i=$((i + 1))
    at=MetricData.member.$i
    name=${number%%=*}
    form+=(-d "$at.MetricName=${name%@}" -d "$at.Value=${number#*=}"
      -d "$at.Dimensions.member.1.Name=Cluster" -d "$at.Dimensions.member.1.Value=$CLUSTER")
    [ "$name" = "${name%@}" ] ||
      form+=(-d "$at.Dimensions.member.2.Name=Node" -d "$at.Dimensions.member.2.Value=$NODE")
  done
  call monitoring / "${form[@]}" >/dev/null
}

# install_tools brings what an image may lack.
install_tools() {
  local tool
  for tool in curl openssl; do
    command -v "$tool" >/dev/null || { apt-get -q update && apt-get -qy install curl openssl ca-certificates && return; }
  done
}

install_package() {
  local file=/var/cache/mqcluster.deb
  if [ -z "$PACKAGE_URL" ]; then
    command -v mqcluster >/dev/null || fail "there is no mqcluster in this image: bake it in, or set package_url"
    return 0
  fi
  [ ! -e "$file.installed" ] || [ "$(cat "$file.installed")" != "$PACKAGE_SHA256" ] || return 0
  curl -sSfL --retry 5 -o "$file" "$PACKAGE_URL"
  sha256sum --check --quiet <<<"$PACKAGE_SHA256  $file" || fail "what is at $PACKAGE_URL is not the package that was meant: its sha256 is another"
  dpkg --install --force-confold "$file"
  echo "$PACKAGE_SHA256" >"$file.installed"
}

# attach mounts the volume, and makes a file system if nothing at all is on it.
attach() {
  local device=/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_${VOLUME/-/} status=0
  if ! mountpoint -q "$disk"; then
    # Terraform attaches it when the machine runs.
    until [ -b "$device" ]; do sleep 1; done
    blkid -p "$device" >/dev/null || status=$?
    case $status in
      0) ;;
      2) mkfs.ext4 -q "$device" ;;
      *) fail "blkid cannot tell what is on $device: $status" ;;
    esac
    mkdir -p "$disk"
    mount "$device" "$disk"
  fi
  # The number of the user may be another on another machine. The folder is last: it
  # tells that all in it is done.
  install -d -m 0700 "$disk/data"
  if [ "$(stat -c %U "$disk/data")" != mqcluster ]; then
    find "$disk/data" -mindepth 1 -exec chown -h mqcluster:mqcluster {} +
    chown mqcluster:mqcluster "$disk/data"
  fi
  mountpoint -q "$data" || mount --bind "$disk/data" "$data"
}

# keep_host_keys gives a machine the SSH keys of the one before it: to an operator
# the node is the same.
keep_host_keys() {
  local -a keys
  if [ -d "$disk/ssh" ]; then
    cp -a "$disk/ssh/." /etc/ssh/
    systemctl try-restart ssh.service || say "sshd was not restarted: to operators the machine is another one until it is"
    return
  fi
  shopt -s nullglob
  keys=(/etc/ssh/ssh_host_*)
  shopt -u nullglob
  [ "${#keys[@]}" -gt 0 ] || return 0
  rm -rf "$disk/ssh.new"
  mkdir "$disk/ssh.new"
  cp -a "${keys[@]}" "$disk/ssh.new/"
  mv "$disk/ssh.new" "$disk/ssh"
}

configure() {
  install -m 0644 /etc/mqcluster/aws.yaml "$config"
}

as_node() { (cd / && runuser -u mqcluster -- mqcluster "$@" --config "$config"); }

# others prints the addresses of the other nodes.
others() {
  local nodes node
  nodes=$(get nodes) || return
  for node in $(field Value <<<"$nodes"); do
    [ "${node%%=*}" = "$NODE" ] || echo "${node#*=}"
  done
}

# member makes this node: it joins, or, if it is the first and there is no cluster,
# makes one. That there is none is said by the parameter alone, never by an empty
# disk; and where a node answers, there is one whatever the parameter says.
member() {
  local reply token peers peer
  local -a how=()
  [ -z "$SERVING_ONLY" ] || how=(--serving-only)
  reply=$(get join-token) || return
  token=$(field Value <<<"$reply")
  peers=$(others) || return
  if [ "$token" = none ]; then
    [ "$NODE" = "$FIRST" ] || { say "node $FIRST has not made the cluster yet"; return 1; }
    for peer in $peers; do
      ! timeout 2 bash -c "exec 3<>/dev/tcp/$peer/$MESH_PORT" 2>/dev/null ||
        { say "there is no token and yet a node at $peer: wait until its leader publishes one"; return 1; }
    done
    as_node init >/dev/null
    return
  fi
  for peer in $peers; do
    # Its name is taken if its disk was lost; a node that is up is never replaced.
    as_node join "$peer:$MESH_PORT" "${how[@]}" --token - <<<"$token" >/dev/null && return
    as_node join "$peer:$MESH_PORT" "${how[@]}" --token - --replace "$NODE" <<<"$token" >/dev/null && return
  done
  return 1
}

boot() {
  local made=
  install_tools
  install_package
  attach
  keep_host_keys
  configure
  until [ -e "$data/node.json" ]; do
    member || { sleep 2; continue; }
    made=yes
  done
  if [ -n "$made" ] && [ "$NODE" = "$FIRST" ]; then
    # The others wait for the token.
    systemctl start mqcluster.service
    tick
  else
    systemctl start --no-block mqcluster.service
  fi
}

# days FILE prints for how many days the certificate that ends first is good.
days() {
  local file end least=99999 left
  for file in "$@"; do
    end=$(openssl x509 -noout -enddate -in "$file") || return
    left=$((($(date -d "${end#*=}" +%s) - EPOCHSECONDS) / 86400))
    [ "$left" -ge "$least" ] || least=$left
  done
  echo "$least"
}

# renew publishes a token when there is none, or an old one.
renew() {
  local reply token changed
  reply=$(get join-token) || return
  changed=$(sed -n 's/.*"LastModifiedDate" *: *\([0-9.Ee+]*\).*/\1/p' <<<"$reply")
  if [ "$(field Value <<<"$reply")" != none ] &&
    awk -v changed="$changed" -v now="$EPOCHSECONDS" -v age="$token_age" 'BEGIN { exit !(now - changed < age) }'; then
    return 0
  fi
  token=$(mqcluster token create --quiet --ttl "$token_life" --uses "$token_uses") &&
    put join-token SecureString "$token"
}

publish_ca() {
  local text reply
  text=$(mqcluster cert ca) && reply=$(get ca) || return
  text=${text//$'\n'/\\n}
  [ "$text" = "$(field Value <<<"$reply")" ] || put ca String "$text"
}

# settle takes members out that terraform has taken away. One that is up stays.
settle() {
  local nodes member
  nodes=$(get nodes) || return
  nodes=$(field Value <<<"$nodes")
  [ -n "$nodes" ] || return
  for member in $(awk 'table && $3 == "down" { print $1 } $1 == "NODE" { table = 1 }' <<<"$1"); do
    case " $nodes" in
      *" $member="*) ;;
      *) mqcluster leave "$member" ;;
    esac
  done
}

tick() {
  local status quorum=0 up failed=0 used left
  local -a about=()
  # What the volume was made larger by; nothing if it was not.
  resize2fs "$(findmnt -no SOURCE "$disk")" >/dev/null 2>&1 || true
  status=$(mqcluster status 2>&1) || { say "the node does not answer: $status"; status=; }
  ! grep -q '^quorum *yes' <<<"$status" || quorum=1
  up=$(awk 'table && ($2 == "leader" || $2 == "voter") && $3 != "down" { n++ } $1 == "NODE" { table = 1 } END { print n + 0 }' <<<"$status")
  about=("Quorum=$quorum" "VotersUp=$up")
  used=$(df --output=pcent "$disk" | tr -dc 0-9) && about+=("DiskUsedPercent@=$used")
  left=$(days "$data/tls/node.crt" "$data/tls/ca.crt") && about+=("CertificateDaysLeft@=$left")
  numbers "${about[@]}" || failed=1
  if [ "$(awk '$1 == "leader" { print $2; exit }' <<<"$status")" = "$NODE" ]; then
    renew || failed=1
    publish_ca || failed=1
    settle "$status" || failed=1
  fi
  return "$failed"
}

backup() {
  local work file
  [ "$(mqcluster status | awk '$1 == "leader" { print $2; exit }')" = "$NODE" ] || return 0
  work=$(mktemp -d -p /var/tmp)
  # shellcheck disable=SC2064 # as it is now
  trap "rm -rf '$work'" EXIT
  file=$(date -u +%Y-%m-%dT%H-%M-%SZ)-$NODE.mqb
  mqcluster backup "$work/$file" --recipient "$BACKUP_RECIPIENT" --timeout 1h >/dev/null
  call s3 "/$BUCKET/backup/$file" -H 'X-Amz-Content-Sha256: UNSIGNED-PAYLOAD' -T "$work/$file" >/dev/null
  numbers BackupsPut=1
}

case ${1:-} in
  boot) boot ;;
  tick) tick ;;
  backup) backup ;;
  *) sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "$0" >&2 && exit 2 ;;
esac
