# Starts Redis as its image does, with its password: see docker-compose.yml.
. /deploy/password.sh
exec docker-entrypoint.sh "$@" --requirepass "$password"
