-- The tables of the demo's second database; the jobs fill them, a day or an hour at a time.
CREATE TABLE IF NOT EXISTS flights (
    day date NOT NULL, carrier text NOT NULL, flight integer NOT NULL, origin text NOT NULL, dest text NOT NULL,
    sched_dep_time integer NOT NULL, dep_delay real, arr_delay real, distance integer
);
CREATE INDEX IF NOT EXISTS flights_of_day ON flights (day);

-- One report an hour and airport; `hour` is when it begins. What the feed lacks is filled from the other airports.
CREATE TABLE IF NOT EXISTS weather (
    hour timestamptz, origin text, temperature real, wind_speed real, precipitation real,
    filled boolean NOT NULL DEFAULT false, PRIMARY KEY (hour, origin)
);
-- What a broken sensor tells instead of the wind that blew. Emptied by `accept-correction`.
CREATE TABLE IF NOT EXISTS sensor_faults (
    hour timestamptz, origin text, wind_speed real NOT NULL, PRIMARY KEY (hour, origin)
);

CREATE TABLE IF NOT EXISTS flight_weather (
    day date, origin text, hour integer, flights integer, cancelled integer, delayed integer,
    mean_delay real, wind_speed real, PRIMARY KEY (day, origin, hour)
);
CREATE TABLE IF NOT EXISTS wind_impact (
    day date, origin text, mean_wind numeric(7, 2), strongest_wind numeric(7, 2),
    delayed integer, delayed_by_wind integer, PRIMARY KEY (day, origin)
);
CREATE TABLE IF NOT EXISTS station_quality (
    day date PRIMARY KEY, reports integer NOT NULL, filled integer NOT NULL
);
CREATE TABLE IF NOT EXISTS delay_costs (
    day date PRIMARY KEY, owed integer NOT NULL, excused integer NOT NULL, cost numeric(12, 2) NOT NULL,
    booked text NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS weekly_report (
    week date PRIMARY KEY, days integer, flights integer, mean_wind numeric(7, 2), cost numeric(14, 2)
);
CREATE TABLE IF NOT EXISTS briefings (
    day date PRIMARY KEY, days integer, cost numeric(14, 2), worst numeric(14, 2)
);
CREATE TABLE IF NOT EXISTS claims (day date PRIMARY KEY, flights integer, claimed numeric(14, 2));
