// Package config reads the settings of the three deployables: from the environment, then from a file .env in the
// working directory, then their defaults. They are validated once, all of them together, and the job types'
// Definitions are overridden once, here.
//
// It decides nothing and connects to nothing.
package config
