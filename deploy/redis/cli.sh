# redis-cli with the password: docker compose exec redis sh /deploy/cli.sh INFO. An empty password must not be sent.
. /deploy/password.sh
if [ -n "$password" ]; then export REDISCLI_AUTH="$password"; fi
exec redis-cli "$@"
