# Sourced by the other scripts: where things are, and the tools that the checks
# need. A tool is installed once, by name and version from its registry, into the
# cache; deleting the cache costs time and nothing else.
# shellcheck shell=bash

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/herald"
tools="$cache/tools"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"

buf_version=1.75.0
grpcurl_version=1.9.3
ghz_version=0.121.0
kafka_version=4.1.0
# That of the plugins for C# and Python in buf.gen.yaml.
protoc_version=35.1
# The last one that Go 1.21 builds.
compose_version=2.29.7
versitygw_version=1.8.0
hadoop_version=3.4.2
# That of pyspark in tests/python/requirements.txt.
spark_version=3.4.1

# die MESSAGE: ends the script.
die() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

# need COMMAND PACKAGE: a missing command ends the script; nothing is skipped.
need() {
    command -v "$1" >/dev/null || die "$1 is missing; install $2 (see README.md)"
}

# install_once FOLDER COMMAND…: runs COMMAND with an empty folder as its last
# argument and gives that folder its name only when all went well, so that one
# that exists is complete, also when two scripts install at the same time.
install_once() {
    local folder=$1 partial
    shift
    [ -d "$folder" ] && return
    echo "installing $(basename "$folder")" >&2
    mkdir -p "$(dirname "$folder")"
    partial=$(mktemp -d "$folder.XXXXXX")
    if ! "$@" "$partial" >"$partial.log" 2>&1; then
        cat "$partial.log" >&2
        rm -rf "$partial" "$partial.log"
        die "could not install $(basename "$folder")"
    fi
    rm -f "$partial.log"
    # Another script may have been faster; its folder is as good.
    if [ -d "$folder" ]; then rm -rf "$partial"; else mv "$partial" "$folder"; fi
}

install_buf() {
    npm install --no-audit --no-fund --prefix "$1" "@bufbuild/buf@$buf_version"
}

install_grpcurl() {
    GOBIN="$1" go install "github.com/fullstorydev/grpcurl/cmd/grpcurl@v$grpcurl_version"
}

# It wants a newer Go than grpcurl, which Go 1.21 fetches by itself where it may.
install_ghz() {
    GOBIN="$1" go install "github.com/bojand/ghz/cmd/ghz@v$ghz_version"
}

install_python() {
    python3 -m venv "$1" &&
        "$1/bin/python" -m pip install --disable-pip-version-check \
            -r "$repo/tests/python/requirements.txt"
}

# install_jars NAME FOLDER GROUP:ARTIFACT:VERSION…: jars and what they need, which Maven knows
# and fetches, in FOLDER/jars.
install_jars() {
    local name=$1 folder=$2 artifact group version dependencies=""
    shift 2
    for artifact in "$@"; do
        IFS=: read -r group artifact version <<<"$artifact"
        dependencies+="
    <dependency>
      <groupId>$group</groupId>
      <artifactId>$artifact</artifactId>
      <version>$version</version>
    </dependency>"
    done
    cat >"$folder/pom.xml" <<XML
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>herald</groupId>
  <artifactId>$name</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>$dependencies
  </dependencies>
</project>
XML
    mvn --quiet --batch-mode --file "$folder/pom.xml" \
        dependency:copy-dependencies -DoutputDirectory="$folder/jars"
}

# Kafka is jars and nothing else.
install_kafka() {
    install_jars kafka "$1" "org.apache.kafka:kafka_2.13:$kafka_version" \
        "org.apache.kafka:kafka-tools:$kafka_version" org.slf4j:slf4j-simple:1.7.36
}

# And so is HDFS.
install_hdfs() {
    local artifact artifacts=()
    for artifact in hadoop-common hadoop-hdfs hadoop-hdfs-client; do
        artifacts+=("org.apache.hadoop:$artifact:$hadoop_version")
    done
    install_jars hdfs "$1" "${artifacts[@]}"
}

# Spark itself comes with pyspark; what reads Kafka and protobuf does not.
install_spark_connectors() {
    local artifact artifacts=()
    for artifact in spark-sql-kafka-0-10 spark-protobuf; do
        artifacts+=("org.apache.spark:${artifact}_2.12:$spark_version")
    done
    install_jars spark "$1" "${artifacts[@]}"
}

# It wants a newer Go than the rest, which Go 1.21 fetches by itself where it may.
install_versitygw() {
    GOBIN="$1" GOTOOLCHAIN=auto go install -ldflags "-s -w" \
        "github.com/versity/versitygw/cmd/versitygw@v$versitygw_version"
}

# install_debian PACKAGE COMMAND FOLDER: Debian's package and what it needs and is not there
# yet, unpacked beside the system: no root needed. The wrapper finds the libraries from where
# it is itself; COMMAND is below /usr.
install_debian() (
    local package=$1 command=$2 file
    cd "$3" || exit
    missing() {
        apt-get install --simulate --no-install-recommends "$package" | awk '/^Inst/ { print $2 }'
    }
    fetch() {
        local packages
        packages=$(missing) && [ -n "$packages" ] || return 1
        # shellcheck disable=SC2086 # several packages
        apt-get download $packages
    }
    # Old lists name packages that are gone; new ones need root.
    fetch || { apt-get update && fetch; } || {
        echo "cannot fetch Debian's $package; install $package"
        exit 1
    }
    for file in ./*.deb; do
        dpkg -x "$file" root || exit
    done
    rm ./*.deb
    mkdir bin
    cat >"bin/$package" <<SH
#!/bin/sh
root=\$(dirname "\$0")/../root
libraries=\$(echo "\$root"/usr/lib/*-linux-*)
LD_LIBRARY_PATH=\$libraries:\$libraries/pulseaudio exec "\$root/usr/$command" "\$@"
SH
    chmod +x "bin/$package"
)

# install_command NAME FOLDER: Debian's package of the same name.
install_command() {
    install_debian "$1" "bin/$1" "$2" && "$2/bin/$1" -V
}

# What its own wrapper would do is for desktops.
install_chromium() {
    install_debian chromium lib/chromium/chromium "$1" && "$1/bin/chromium" --version
}

# Google's own build, which Maven Central holds for each kind of machine.
install_protoc() {
    local system machine artifact=com.google.protobuf:protoc
    case $(uname -s) in Darwin) system=osx ;; *) system=linux ;; esac
    case $(uname -m) in arm64 | aarch64) machine=aarch_64 ;; *) machine=x86_64 ;; esac
    mvn --quiet --batch-mode dependency:copy -DoutputDirectory="$1" \
        -Dartifact="$artifact:4.$protoc_version:exe:$system-$machine" &&
        mv "$1"/protoc-*.exe "$1/protoc" && chmod +x "$1/protoc" && "$1/protoc" --version
}

# install_npm_packages SOURCE FOLDER: what SOURCE/package-lock.json names.
install_npm_packages() {
    cp "$1/package.json" "$1/package-lock.json" "$2" &&
        npm ci --no-audit --no-fund --ignore-scripts --cache "$cache/npm" --prefix "$2"
}

install_compose() {
    local module=github.com/docker/compose/v2
    # What is built is called cmd, after its folder.
    GOBIN="$1" go install -ldflags "-s -X $module/internal.Version=v$compose_version" \
        "$module/cmd@v$compose_version" &&
        mv "$1/cmd" "$1/docker-compose" &&
        "$1/docker-compose" version
}

# Sets $buf to the buf command.
ensure_buf() {
    need npm "nodejs and npm"
    install_once "$tools/buf-$buf_version" install_buf
    buf="$tools/buf-$buf_version/node_modules/.bin/buf"
    export PATH="$tools/buf-$buf_version/node_modules/.bin:$PATH"
}

# ensure_npm_packages NAME SOURCE: sets $npm_packages to a folder with the node_modules that
# SOURCE/package-lock.json names.
ensure_npm_packages() {
    need npm "nodejs and npm"
    local key old="const [a, b] = process.versions.node.split('.').map(Number);
        process.exit(a > 22 || (a === 22 && b >= 12) || (a === 20 && b >= 19) ? 1 : 0)"
    if node -e "$old"; then
        die "node $(node --version) is too old; install 20.19, or 22.12 or newer"
    fi
    key=$( (node --version && cat "$2/package-lock.json") | cksum | cut -d' ' -f1)
    install_once "$tools/$1-$key" install_npm_packages "$2"
    npm_packages="$tools/$1-$key"
}

# Sets $web_packages to those that the page is built with.
ensure_web_packages() {
    ensure_npm_packages web "$repo/web"
    web_packages=$npm_packages
}

# Sets $connect_packages to those that the Connect protocol is tested with.
ensure_connect_packages() {
    ensure_npm_packages connect "$repo/tests/connect_es"
    connect_packages=$npm_packages
}

# Puts grpcurl on the PATH.
ensure_grpcurl() {
    need go golang
    install_once "$tools/grpcurl-$grpcurl_version" install_grpcurl
    export PATH="$tools/grpcurl-$grpcurl_version:$PATH"
}

ensure_ghz() {
    need go golang
    install_once "$tools/ghz-$ghz_version" install_ghz
    export PATH="$tools/ghz-$ghz_version:$PATH"
}

# Sets $python to an interpreter that has what tests/python/requirements.txt names.
ensure_python_venv() {
    need python3 "python3 and python3-venv"
    local key
    key=$( (python3 --version && cat "$repo/tests/python/requirements.txt") | cksum | cut -d' ' -f1)
    install_once "$tools/python-$key" install_python
    python="$tools/python-$key/bin/python"
}

# Sets and exports $PROTOC to protoc, for what buf cannot do alone.
ensure_protoc() {
    need java default-jre-headless
    need mvn maven
    install_once "$tools/protoc-$protoc_version" install_protoc
    export PROTOC="$tools/protoc-$protoc_version/protoc"
}

# Sets $kafka_classpath to Kafka's jars, broker and tools.
ensure_kafka() {
    need java default-jre-headless
    need mvn maven
    install_once "$tools/kafka-$kafka_version" install_kafka
    kafka_classpath="$tools/kafka-$kafka_version/jars/*"
}

# Sets $versitygw to an S3-compatible server.
ensure_s3() {
    need go golang
    install_once "$tools/versitygw-$versitygw_version" install_versitygw
    versitygw="$tools/versitygw-$versitygw_version/versitygw"
}

# Sets $hdfs_classpath to HDFS's jars, servers and tools.
ensure_hdfs() {
    need java default-jre-headless
    need mvn maven
    install_once "$tools/hdfs-$hadoop_version" install_hdfs
    hdfs_classpath="$tools/hdfs-$hadoop_version/jars/*"
}

# Sets $spark_jars to Spark's connectors to Kafka and protobuf, separated by commas.
ensure_spark_connectors() {
    need java default-jre-headless
    need mvn maven
    install_once "$tools/spark-connectors-$spark_version" install_spark_connectors
    local jars="$tools/spark-connectors-$spark_version/jars"
    # What else they name is in Spark.
    spark_jars=$(printf '%s,' "$jars"/{spark-sql-kafka,spark-token,spark-protobuf,kafka-clients,commons-pool2}*.jar)
    spark_jars=${spark_jars%,}
}

# ensure_command NAME: puts NAME on the PATH, if need be from Debian's package of that name.
ensure_command() {
    if command -v "$1" >/dev/null; then return; fi
    command -v apt-get >/dev/null || need "$1" "$1"
    install_once "$tools/$1" install_command "$1"
    export PATH="$tools/$1/bin:$PATH"
}

# Puts kcat on the PATH.
ensure_kcat() {
    ensure_command kcat
}

# Puts jq on the PATH.
ensure_jq() {
    ensure_command jq
}

# Sets and exports $CHROMIUM to a Chromium: the machine's own, or else Debian's.
ensure_chromium() {
    if CHROMIUM=$(command -v chromium); then
        export CHROMIUM
        return
    fi
    command -v apt-get >/dev/null || need chromium chromium
    install_once "$tools/chromium" install_chromium
    export CHROMIUM="$tools/chromium/bin/chromium"
}

# Sets and exports $COMPOSE to the command of Docker Compose, version 2 or later: the
# machine's own, or else one that is built. It checks and shows compose files; that
# needs no Docker.
ensure_compose() {
    for COMPOSE in "docker compose" docker-compose; do
        export COMPOSE
        # shellcheck disable=SC2086 # a command and its argument
        case $($COMPOSE version --short 2>/dev/null || true) in
        "" | 1.* | v1.*) ;;
        *) return ;;
        esac
    done
    need go golang
    install_once "$tools/docker-compose-$compose_version" install_compose
    export COMPOSE="$tools/docker-compose-$compose_version/docker-compose"
}
