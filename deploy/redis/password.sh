# The password of Redis in its container, for the other scripts: REDIS_PASSWORD, or else what is in the file that
# REDIS_PASSWORD_FILE names on the host, which is empty where there is none.
password="${REDIS_PASSWORD:-$(cat /run/secrets/redis_password_file)}"
