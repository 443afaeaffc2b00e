#!/bin/sh
# Makes testdata/openssl anew: what operators make with openssl, in every dress
# that the tests read. Passphrase of the encrypted keys: open sesame.
set -eu
cd "$(dirname "$0")"
rm -rf openssl && mkdir openssl && cd openssl
P="pass:open sesame"
cat > ca.cnf <<'CNF'
[ca]
default_ca = d
[d]
database = idx
new_certs_dir = .
default_md = sha256
default_crl_days = 36500
unique_subject = no
policy = p
crl_extensions = crl
rand_serial = yes
[p]
organizationName = optional
commonName = supplied
[req]
distinguished_name = dn
[dn]
[crl]
authorityKeyIdentifier = keyid
[ca_ext]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[server]
subjectAltName = DNS:broker.park.example,DNS:localhost,IP:127.0.0.1
extendedKeyUsage = serverAuth
[device]
subjectAltName = email:device-7@park.example
extendedKeyUsage = clientAuth
CNF
: > idx
sign() { # name, extensions, further arguments
	name=$1 ext=$2; shift 2
	openssl ca -batch -notext -config ca.cnf -startdate 20200101000000Z -enddate 21200101000000Z \
		-extensions "$ext" -in "$name.csr" -out "$name.crt" "$@"
}
openssl ecparam -name prime256v1 -genkey -noout -out ca.key
openssl req -new -config ca.cnf -key ca.key -subj "/O=Park/CN=Park CA" -out ca.csr
sign ca ca_ext -selfsign -keyfile ca.key
openssl genrsa -out server.key 4096
openssl req -new -config ca.cnf -key server.key -subj "/CN=broker.park.example" -out server.csr
sign server server -cert ca.crt -keyfile ca.key
openssl ecparam -name secp384r1 -genkey -noout -out ec-sec1.key
openssl req -new -config ca.cnf -key ec-sec1.key -subj "/CN=device-7" -out device.csr
sign device device -cert ca.crt -keyfile ca.key
openssl pkcs8 -topk8 -nocrypt -in ec-sec1.key -out ec-pkcs8.key
openssl pkcs8 -topk8 -in ec-sec1.key -passout "$P" -out ec-default.key
openssl pkcs8 -topk8 -in ec-sec1.key -passout "$P" -v2 aes-128-cbc -v2prf hmacWithSHA1 -out ec-aes128-sha1.key
openssl pkcs8 -topk8 -in ec-sec1.key -passout "$P" -v2 aes-192-cbc -v2prf hmacWithSHA512 -out ec-aes192-sha512.key
openssl pkcs8 -topk8 -in ec-sec1.key -passout "$P" -v2 des3 -out ec-des3.key
openssl pkcs8 -topk8 -in ec-sec1.key -passout "$P" -scrypt -out ec-scrypt.key
openssl pkcs8 -topk8 -in ec-sec1.key -passout "$P" -v1 PBE-SHA1-3DES -out ec-pbes1.key
openssl pkcs8 -topk8 -in ec-sec1.key -passout "$P" -iter 2 -out ec-cheap.key
openssl ec -in ec-sec1.key -aes256 -passout "$P" -out ec-legacy.key
openssl ca -config ca.cnf -cert ca.crt -keyfile ca.key -gencrl -out none-revoked.crl
openssl ca -config ca.cnf -cert ca.crt -keyfile ca.key -revoke device.crt
openssl ca -config ca.cnf -cert ca.crt -keyfile ca.key -gencrl -out device-revoked.crl
openssl ca -config ca.cnf -cert ca.crt -keyfile ca.key -gencrl -crl_lastupdate 20200101000000Z -crl_nextupdate 20200201000000Z -out outdated.crl
rm -f ./*.csr idx* ca.cnf ca.key [0-9A-F]*.pem
